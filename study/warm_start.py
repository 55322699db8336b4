"""What earlier studies tell a study: read once, when it is created, and kept with it."""

import optuna

from ..errors import MergefrontError, SpecError, StudyError
from ..samplers import Source, kept
from .spec.base import near_hint, without_credentials
from .spec.inputs import StudyInputs
from .spec.study_spec import StudySpec
from .storage.connection import load_study, open_storage
from .storage.identity import database_of
from .storage.urls import shown_url

SPEC_FILES = (".yaml", ".yml")


def sources_of(inputs: StudyInputs) -> list[Source]:
    """Read the studies that `sampler.warm_start` names.

    Args:
        inputs: A valid spec with its models.

    Raises:
        SpecError: If one is not there, has measured nothing, shares no objective or no weight
            with this study, is this study, or is named twice.
    """
    own = _own(inputs.spec)
    known = {own: "is this study itself"}
    sources = []
    for place, reference in enumerate(inputs.spec.sampler.warm_start):
        if own is None and _means_own(reference, inputs.spec):
            raise SpecError(
                f"sampler.warm_start[{place}]: {shown_reference(reference)!r} is this study "
                "itself, which has measured nothing yet. Remove it, or name another one."
            )
        study = _opened(place, reference, inputs.spec)
        identity = _identity(study)
        if identity in known:
            raise SpecError(
                f"sampler.warm_start[{place}]: study {study.study_name!r} {known[identity]}, and "
                "what it measured would count twice. Remove it."
            )
        known[identity] = "is named already"
        sources.append(_source(study, inputs))
    return sources


def warm_start(inputs: StudyInputs, study: optuna.Study | None) -> list[str]:
    """Return what each source tells a study, as lines of the dry run.

    Args:
        inputs: A valid spec with its models.
        study: Where it exists: what it keeps counts, whatever the spec names now.

    Raises:
        SpecError: As `sources_of` does, where nothing is kept.
    """
    old = [] if study is None else kept(study)
    if old:
        return [f"{_described(source, inputs)}; kept since it was first read" for source in old]
    return [_described(source, inputs) for source in sources_of(inputs)]


def _described(source: Source, inputs: StudyInputs) -> str:
    shared = ", ".join(map(str, source.shared(inputs.spec.metric_names, inputs.spec.directions)))
    kept = source.matched(_numbers(inputs))
    return (
        f"{source.n_trials} trials of study {source.study} tell of {shared}, by {len(kept)} of "
        f"its {len(source.names)} weights"
    )


def _numbers(inputs: StudyInputs) -> list[str]:
    """Return the parameters that a source may tell of: no operator, no experts, no precision."""
    plan = inputs.plan
    return [name for name in plan.parameter_names if name not in plan.settings.categories]


def _opened(place: int, reference: str, spec: StudySpec) -> optuna.Study:
    try:
        return _study(reference, spec)
    except MergefrontError as error:  # which speaks of a study's own storage, or of a spec
        raise SpecError(f"sampler.warm_start[{place}]: {error}") from error


def _own(spec: StudySpec) -> tuple[str, str] | None:
    """Return which study a spec's own is; None if its database is not there yet."""
    try:
        storage = open_storage(spec.study.storage, create=False)
    except StudyError:
        return None
    return database_of(storage), spec.study.name


def _means_own(reference: str, spec: StudySpec) -> bool:
    """Whether a reference names a spec's own study, which need not be there yet."""
    url, _, name = reference.rpartition("#")
    return name == spec.study.name and url in ("", spec.study.storage)


def _identity(study: optuna.Study) -> tuple[str, str]:
    return database_of(study._storage), study.study_name


def _source(study: optuna.Study, inputs: StudyInputs) -> Source:
    try:
        source = Source.of(study)
    except ValueError as error:
        raise SpecError(f"sampler.{error} Finish it, or name another one.") from None
    try:
        source.check(inputs.spec.metric_names, inputs.spec.directions)
    except ValueError as error:
        raise SpecError(f"sampler.{error}") from None
    numbers = _numbers(inputs)
    if not source.matched(numbers):
        raise SpecError(
            f"sampler.warm_start: study {study.study_name!r} has the weights "
            f"{', '.join(source.names[:3])}, and this one "
            f"{', '.join(numbers[:3])}: none can be matched. Name another one."
        )
    return source


def _study(reference: str, spec: StudySpec) -> optuna.Study:
    """Open a study by its name, by `storage#name`, or by its spec's file."""
    if reference.endswith(SPEC_FILES):
        return load_study(StudySpec.from_yaml(spec.folder / reference))
    url, _, name = reference.rpartition("#")
    if not name.strip():  # the storage may hold a password
        raise SpecError("It must name a study: NAME, STORAGE#NAME or a spec's file.")
    storage = open_storage(url or spec.study.storage, create=False)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        names = optuna.get_all_study_names(storage)
        raise StudyError(
            f"It names the study {without_credentials(name)!r}, but "
            f"{shown_url(url or spec.study.storage)} has none of that name"
            f"{near_hint(name, names)}"
        ) from None


def shown_reference(reference: str) -> str:
    """Return a reference without passwords."""
    url, mark, name = reference.rpartition("#")
    return f"{shown_url(url)}{mark}{name}" if url else reference
