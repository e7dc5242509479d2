"""Files of a run: checkpoints, and one line of metrics an epoch."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeVar

import equinox as eqx

from .._files import finite, unwritten, write_atomically

_T = TypeVar("_T")

FORMAT = 1


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Keep every other process out of a folder that calls this too. The system lets go when a process ends, however.

    Raises:
        RuntimeError: another process is in it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"another process is training in {folder}, and two would write over each other's checkpoints. Wait for "
                "its end, stop it, or give another out= (--out)."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


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
    """Append one object to a JSONL file.

    Raises:
        OSError: it cannot be written; a part of the line may have been, which `read_lines` leaves out.
    """
    line = json.dumps(finite(record), allow_nan=False) + "\n"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritten(path, error) from error


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the metrics of epochs; a last line that was cut short is left out.

    Raises:
        ValueError: another line is not what `append_line` wrote.
    """
    if not path.is_file():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            record = json.loads(line)
            int(record["epoch"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is not the metrics of an epoch ({type(error).__name__}: {error}). It was "
                "changed after it was written. Mend it, or delete it: training does not need it."
            ) from error
        records.append(record)
    return records


def keep_lines(path: pathlib.Path, epochs: int) -> None:
    """Cut a JSONL file of metrics down to the first epochs."""
    kept = [record for record in read_lines(path) if record["epoch"] <= epochs]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    write_atomically(path, lambda file: file.write(text.encode()))
