"""Log records as lines of JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

# The logger of what a worker does.
WORKER = "mergefront.worker"
# What every record has; the rest was given by who logged it.
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    """How a worker tells what it does."""

    TEXT = "text"
    JSON = "json"


class JsonLines(logging.Formatter):
    """A log record as one line of JSON: `time`, `level`, `event`, and what it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        content |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            content["error"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def use(kind: LogFormat) -> LogFormat:
    """Write every log record of this process to stderr as JSON, if that is the kind."""
    if kind is LogFormat.JSON:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        logging.captureWarnings(True)
        logging.getLogger(WORKER).setLevel(logging.INFO)
    return kind


def in_use() -> bool:
    """Whether log records are written as JSON."""
    return any(isinstance(h.formatter, JsonLines) for h in logging.getLogger().handlers)
