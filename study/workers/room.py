"""Room on the disk that results are written to, looked for before a candidate is taken."""

import errno
import shutil
import uuid
from pathlib import Path

from ...errors import StudyError
from ..spec.study_spec import StudySpec
from ..storage.connection import state_dir

# What a write says that will not succeed a moment later either.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
# Answers of one candidate: some thousands of questions of some thousand characters.
_NEEDED = 16 * 2**20


def check_room(spec: StudySpec) -> None:
    """Check that the disk of a study's local files has room; nothing need be there yet.

    Raises:
        StudyError: If the disk is full.
    """
    Room(state_dir(spec).absolute()).check_free()


class Room:
    """The disk of a study's local files.

    Args:
        directory: Where they are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def check(self) -> None:
        """Check that a result could be written.

        Raises:
            StudyError: If the disk is full, or cannot be written.
        """
        self.check_free()
        probe = self._directory / f"room-{uuid.uuid4().hex[:8]}.tmp"
        try:
            probe.write_bytes(b"0")
        except OSError as error:
            raise self.error(error.strerror or str(error)) from error
        finally:
            probe.unlink(missing_ok=True)

    def check_free(self) -> None:
        """Check that there is room, writing nothing; the directory need not be there yet.

        Raises:
            StudyError: If the disk is full.
        """
        there = next(each for each in (self._directory, *self._directory.parents) if each.exists())
        usage = shutil.disk_usage(there)
        if not usage.total:
            raise self.error("there is no disk")
        free = usage.free
        if free < _NEEDED:
            raise self.error(f"{free / 2**20:.1f} MiB are free, {_NEEDED // 2**20} are needed")

    def error(self, reason: str) -> StudyError:
        """Return the error about this disk."""
        return StudyError(
            f"Results cannot be written to {self._directory} ({reason}). No candidate is spent on "
            "it; make room and start again."
        )
