"""Atomic writes of files, and folders for them."""

import contextlib
import errno
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO


def make_folder(path: pathlib.Path, remedy: str) -> None:
    """Make a folder and its parents, or check that an existing one is writable. `remedy` ends the error message."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = _in_the_way(path) or error.strerror
        raise OSError(error.errno, f"the folder {path} cannot be made: {reason}. {remedy}") from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"the folder {path} may not be read and written by this user. {remedy}")


def _in_the_way(path: pathlib.Path) -> str | None:
    """Return which file or broken link blocks a folder, or `None`."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):  # no permission to enter a folder
            if place.is_symlink() and not place.exists():
                return f"{place} is a broken link"
            if place.is_file():
                return f"{place} is a file"
    return None


def write_atomically(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file atomically: after a crash or power cut either the old file or the new one is there, complete.

    Raises:
        OSError: it cannot be written (the disk is full, say); the old file is unchanged.
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
    """Return an error which says that a file could not be written, and why."""
    if not path.parent.is_dir():
        return OSError(
            error.errno,
            f"{path} could not be written: its folder is gone. Put it back and resume the run, or begin anew.",
        )
    return OSError(
        error.errno,
        f"{path} could not be written ({error.strerror}). The previous file is intact. Free some "
        "space or fix the cause, and repeat the command (a training run continues with resume=True, --resume).",
    )


def _sync_folder(folder: pathlib.Path) -> None:
    """Flush a renaming to disk, where the system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write plain values as JSON; NaN and infinities become null."""
    text = json.dumps(finite(value), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def finite(value: Any) -> Any:
    """Return the value with None for NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
