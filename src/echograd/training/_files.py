"""Files of a run: checkpoints, and one line of metrics an epoch."""

import contextlib
import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeVar

import equinox as eqx

from .._files import finite, unwritten, write_atomically

_T = TypeVar("_T")

FORMAT = 2
_CHECKSUM = "crc32"


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
    """Write one line of JSON and then the array leaves of a tree, atomically, with a checksum over both."""
    header = {"format": FORMAT, **header}
    arrays = io.BytesIO()
    eqx.tree_serialise_leaves(arrays, tree)
    line = _line({**header, _CHECKSUM: _checksum(header, arrays.getbuffer())})

    def write(file: BinaryIO) -> None:
        file.write(line)
        file.write(arrays.getbuffer())

    write_atomically(path, write)


def load_checkpoint(path: pathlib.Path, like: _T) -> tuple[dict[str, Any], _T]:
    """Read what `save_checkpoint` wrote.

    Args:
        path: the file.
        like: a tree of the same structure, with arrays of the same shapes and dtypes.

    Raises:
        ValueError: the file is no checkpoint, one of something else, or damaged.
    """
    with path.open("rb") as file:
        line, arrays = file.readline(), file.read()
    try:
        header = json.loads(line)
        if header["format"] not in (1, FORMAT):
            raise ValueError(f"format {header['format']}, and {FORMAT} is what this version reads")
        if header["format"] == FORMAT or _CHECKSUM in header:  # format 1 had none
            expected = header.pop(_CHECKSUM)
            found = _checksum(header, arrays)
            if found != expected:
                raise ValueError(f"its bytes have the checksum {found}, and {expected} is what was written")
        unread = io.BytesIO(arrays)
        tree = eqx.tree_deserialise_leaves(unread, like)
        if unread.read(1):
            raise ValueError("it holds more arrays than are looked for")
        return header, tree
    except (ValueError, KeyError, TypeError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of this run ({_said(error)}). It belongs to another config, or was damaged, "
            "changed or cut short after it was written. Restore it; or delete it, with last.eqx if that is another "
            "file, and resume the run, which then trains from its beginning to the same numbers."
        ) from error


def _line(header: dict[str, Any]) -> bytes:
    return (json.dumps(header, allow_nan=False) + "\n").encode()


def _checksum(header: dict[str, Any], arrays: bytes | memoryview) -> int:
    """Return a number that any few changed bytes of a checkpoint change."""
    return zlib.crc32(arrays, zlib.crc32(_line(header)))


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {error}"


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
    """Cut a JSONL file of metrics down to the first epochs, if it has more."""
    kept = [record for record in read_lines(path) if record["epoch"] <= epochs]
    text = "".join(json.dumps(record) + "\n" for record in kept).encode()
    if path.is_file() and path.read_bytes() != text:
        write_atomically(path, lambda file: file.write(text))
