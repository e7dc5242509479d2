"""Files that are whole or not there: checkpoints, results, and one line of metrics an epoch."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import equinox as eqx

_T = TypeVar("_T")

FORMAT = 1


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
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror}). What was there before is intact. Make room, or mend "
            "what stands in the way, and resume the run",
        ) from error
    _sync_folder(path.parent)


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


def save_checkpoint(path: pathlib.Path, header: dict[str, Any], tree: Any) -> None:
    """Write one line of JSON and then the array leaves of a tree, atomically."""
    line = json.dumps({"format": FORMAT, **header}, allow_nan=False) + "\n"

    def write(file: BinaryIO) -> None:
        file.write(line.encode())
        eqx.tree_serialise_leaves(file, tree)

    write_atomically(path, write)


def load_checkpoint(path: pathlib.Path, like: _T) -> tuple[dict[str, Any], _T]:
    """Read what `save_checkpoint` wrote.

    Args:
        path: the file.
        like: a tree of the same structure, with arrays of the same shapes and dtypes.

    Raises:
        ValueError: the file is no checkpoint, or one of something else.
    """
    with path.open("rb") as file:
        try:
            header = json.loads(file.readline())
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']}, and {FORMAT} is what this version reads")
            return header, eqx.tree_deserialise_leaves(file, like)
        except (ValueError, KeyError, TypeError, RuntimeError, EOFError) as error:
            raise ValueError(
                f"{path} is not a checkpoint of this run ({error}). It belongs to another config, or was changed or "
                "cut short after it was written. Begin another run."
            ) from error


def append_line(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Append one object to a JSONL file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite(record), allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read a JSONL file; a last line that was cut short is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(json.loads(line))
    return records


def keep_lines(path: pathlib.Path, epochs: int) -> None:
    """Cut a JSONL file of metrics down to the first epochs."""
    kept = [record for record in read_lines(path) if record["epoch"] <= epochs]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    write_atomically(path, lambda file: file.write(text.encode()))
