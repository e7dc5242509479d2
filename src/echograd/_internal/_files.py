"""Files that are whole or not there, and folders for them."""

import contextlib
import errno
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO


def make_folder(path: pathlib.Path, remedy: str) -> None:
    """Make a folder to write into, and those above it, or see that it can be written into if it is there.

    Args:
        path: the folder.
        remedy: a sentence of what to do if it cannot be, for the error.

    Raises:
        OSError: what stands in the way, and the remedy.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = _in_the_way(path) or error.strerror
        raise OSError(error.errno, f"the folder {path} cannot be made: {reason}. {remedy}") from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"the folder {path} may not be read and written by this user. {remedy}")


def _in_the_way(path: pathlib.Path) -> str | None:
    """Return which file or broken link is where a folder would have to be, if any is."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):  # a folder that may not be entered
            if place.is_symlink() and not place.exists():
                return f"{place} is a link to what is not there"
            if place.is_file():
                return f"{place} is a file"
    return None


def write_atomically(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that at any moment, crash or power cut, the old one or the new one is there, and whole.

    Raises:
        OSError: it cannot be written (the disk is full, say); the old file is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise unwritten(path, error) from error
    _sync_folder(path.parent)


def unwritten(path: pathlib.Path, error: OSError) -> OSError:
    """Return the error of a file that could not be written, which says so."""
    if not path.parent.is_dir():
        return OSError(
            error.errno,
            f"{path} could not be written: its folder is gone. Put it back and resume the run, or begin anew.",
        )
    return OSError(
        error.errno,
        f"{path} could not be written ({error.strerror}). What was there before is intact. Make room, or mend "
        "what stands in the way, and do it again (a training run goes on with resume=True, --resume).",
    )


def _sync_folder(folder: pathlib.Path) -> None:
    """Make a renaming last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write plain values; numbers that JSON lacks become null."""
    text = json.dumps(finite(value), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def finite(value: Any) -> Any:
    """Return the value with None for NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
