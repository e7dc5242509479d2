"""Files of a run: checkpoints, and one line of metrics an epoch."""

import json
import os
import pathlib
from typing import Any, BinaryIO, TypeVar

import equinox as eqx

from .._files import finite, write_atomically

_T = TypeVar("_T")

FORMAT = 1


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
