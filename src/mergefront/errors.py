"""Errors that a user can fix.

The command line prints these as one line and exits with 1; anything else is a defect and keeps
its traceback. Each type also derives from the builtin that a caller would naturally catch.
"""


class MergefrontError(Exception):
    """Base of all errors raised on purpose; its text names the rule, the value and a next step."""


class SpecError(MergefrontError, ValueError):
    """The study specification is invalid, or does not fit the models and tasks it names."""


class LayoutError(MergefrontError, ValueError):
    """A tensor is covered by no merge rule, or two checkpoints do not match tensor by tensor."""


class StudyError(MergefrontError, RuntimeError):
    """The study in the storage cannot be used: missing, other settings, or too many failures."""


class EvaluationError(MergefrontError, RuntimeError):
    """A candidate could not be measured; its trial becomes FAIL with this text as the reason."""


class EngineError(MergefrontError, RuntimeError):
    """An engine failed and was started again; the candidate in hand is to be tried once more."""


class MissingExtraError(MergefrontError, ImportError):
    """An optional dependency is needed; the text names the install command."""


class Interrupted(BaseException):
    """The process was asked to stop (SIGTERM); like KeyboardInterrupt, not an error."""


# Exit code of a worker after SIGTERM: not 0, which tells an orchestrator that its work is done.
STOPPED = 143
