"""Folders and files that appear when all of their content is there."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import SpecError


@contextmanager
def whole_directory(out: Path, option: str = "--out") -> Iterator[Path]:
    """Yield a folder beside `out` to write into; it becomes `out` at the end of the block.

    Whatever ends the block before leaves nothing; a process that is killed leaves a folder
    `.NAME.partial-...` beside `out`, and `out` may be written again.

    Args:
        out: New, or an empty directory.
        option: Of the command line, which named it.

    Raises:
        SpecError: If `out` is a file or a directory with content, or cannot be written.
    """
    check_empty(out, option)
    check_writable(out, option)
    place = out.resolve()  # "." has no name
    beside = place.with_name(f".{place.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        beside.mkdir(parents=True)
        yield beside
        _appear(beside, out, option)
    except OSError as error:
        raise SpecError(
            f"{option} {out} could not be written: {error.strerror or error}. Make room, or "
            "choose another directory; nothing is left of this one."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears, or takes another's place, when all of it is there.

    Raises:
        SpecError: If it cannot be written; what was there is there still.
    """
    part = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise SpecError(
            f"{path} could not be written: {error.strerror or error}. Make room, or choose "
            "another directory."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _appear(beside: Path, out: Path, option: str) -> None:
    try:
        beside.replace(out)
    except OSError:
        if not out.is_dir():
            raise
        check_empty(out, option)  # somebody may have written there meanwhile
        # A mount, or the folder that this runs in: it cannot be replaced, its content can.
        _fill(out, beside)


def _fill(out: Path, beside: Path) -> None:
    """Move the files of a folder into another, the configuration last; all of them or none."""
    names = sorted(
        (path.name for path in beside.iterdir()), key=lambda name: name == "config.json"
    )
    begun: list[Path] = []
    try:
        for name in names:
            begun.append(out / name)
            shutil.move(beside / name, out / name)
    except BaseException:
        for path in begun:
            _remove(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


def check_empty(out: Path, option: str = "--out") -> None:
    """Refuse to write over something.

    Raises:
        SpecError: If `out` is a file or a directory with content.
    """
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise _unwritable(out, option, error) from error
    if taken:
        raise SpecError(
            f"{option} must be a new or empty directory, but {out} is not. Choose another."
        )


def check_writable(out: Path, option: str = "--out") -> None:
    """Refuse what cannot be written, before anything is computed for it.

    Raises:
        SpecError: If no file can be made in `out`, or `out` cannot be made.
    """
    try:
        near = out.absolute()
        while not near.exists():
            near = near.parent
        probe = near / f".writable-{uuid.uuid4().hex[:8]}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _unwritable(out, option, error) from error


def _unwritable(out: Path, option: str, error: OSError) -> SpecError:
    return SpecError(
        f"{option} must be a directory that can be written, but {out}: {error.strerror}. Choose "
        "another."
    )
