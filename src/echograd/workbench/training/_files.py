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

from echograd import ArgumentError, RunError
from echograd._internal._files import finite, unwritten, write_atomically

_T = TypeVar("_T")

FORMAT = 3
_CHECKSUM = "checksum"


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path) -> Iterator[None]:
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
            raise RunError(
                f"another process is training in {folder}, and two would write over each other's checkpoints. Wait for "
                "its end, stop it, or give another out= (--out)."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def seal(record: dict[str, Any], run: str) -> dict[str, Any]:
    """Return a record for a JSON file of a run: with the identity of the run, and a checksum over all of it.

    Args:
        record: plain values; numbers that JSON lacks become null.
        run: identity of the run.
    """
    record = {**finite(record), "run": run}
    return {**record, _CHECKSUM: _checksum(record)}


def unseal(record: Any, run: str | None) -> dict[str, Any]:
    """Return what `seal` was given.

    Args:
        record: as read from the file.
        run: identity of the run that the record must be of; None: any.

    Raises:
        ValueError: the record was changed, or is of another run.
    """
    if not isinstance(record, dict) or not isinstance(record.get("run"), str) or _CHECKSUM not in record:
        raise ArgumentError("it has no identity of a run, or no checksum")
    record = dict(record)
    if record.pop(_CHECKSUM) != _checksum(record):
        raise ArgumentError("its checksum is wrong, so it was edited or damaged")
    owner = record.pop("run")
    if run not in (None, owner):
        raise ArgumentError(f"it belongs to run {owner}, and config.json to run {run}")
    return record


def read_json(path: pathlib.Path) -> Any:
    """Read one value from a JSON file.

    Raises:
        ValueError: the file is not JSON, or nested too deep.
    """
    return parse(path.read_bytes())


def parse(text: bytes) -> Any:
    """Return the value that a text in JSON stands for.

    Raises:
        ValueError: the text is not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ArgumentError("it is nested too deep") from None


def save_checkpoint(path: pathlib.Path, run: str, header: dict[str, Any], tree: Any) -> None:
    """Write one line of JSON and then the array leaves of a tree, atomically, with checksums over both."""
    arrays = _serialised(tree)
    line = _line(seal({"format": FORMAT, **header, "arrays": zlib.crc32(arrays)}, run))

    def write(file: BinaryIO) -> None:
        file.write(line)
        file.write(arrays)

    write_atomically(path, write)


def load_header(path: pathlib.Path, run: str) -> dict[str, Any]:
    """Read the first line of a checkpoint, without its arrays.

    Raises:
        ValueError: the file is no checkpoint, one of another run, or damaged.
    """
    with _explained(path), path.open("rb") as file:
        return _header(file, run)


def load_checkpoint(path: pathlib.Path, run: str, like: _T) -> tuple[dict[str, Any], _T]:
    """Read what `save_checkpoint` wrote.

    Args:
        path: the file.
        run: identity of the run.
        like: a tree of the same structure, with arrays of the same shapes and dtypes.

    Raises:
        ValueError: the file is no checkpoint, one of something else, or damaged.
    """
    with _explained(path), path.open("rb") as file:
        header = _header(file, run)
        arrays, wanted = file.read(), len(_serialised(like))
        found, written = zlib.crc32(arrays), header.pop("arrays")
        if found != written:
            raise ArgumentError(f"its arrays have the checksum {found}, and {written} was written")
        if len(arrays) != wanted:
            raise ArgumentError(f"its arrays take {len(arrays):,} bytes, and those of this model {wanted:,}")
        return header, eqx.tree_deserialise_leaves(io.BytesIO(arrays), like)


def _header(file: BinaryIO, run: str) -> dict[str, Any]:
    header = unseal(parse(file.readline()), run)
    form = header.pop("format")
    if form != FORMAT:
        raise ArgumentError(f"it has format {form}, and this version reads format {FORMAT}")
    return header


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    """Say of a checkpoint that cannot be read which file it is, and what to do."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RuntimeError, EOFError, MemoryError) as error:
        why = str(error) if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {error}"
        raise ArgumentError(
            f"{path} is not a checkpoint of this run: {why}. Restore the file; or delete it, with last.eqx if that is "
            "another file, and resume the run, which then trains from its beginning to the same numbers."
        ) from error


def _serialised(tree: Any) -> bytes:
    """Return the array leaves of a tree, as they stand in a checkpoint."""
    arrays = io.BytesIO()
    eqx.tree_serialise_leaves(arrays, tree)
    return arrays.getvalue()


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode()


def _checksum(record: dict[str, Any]) -> int:
    """Return a number that any few changed values of a record change, and white space does not."""
    try:
        return zlib.crc32(json.dumps(record, sort_keys=True, allow_nan=False).encode())
    except RecursionError:
        raise ArgumentError("it is nested too deep") from None


def append_line(path: pathlib.Path, run: str, record: dict[str, Any]) -> None:
    """Append one object to a JSONL file.

    Raises:
        OSError: it cannot be written; a part of the line may have been, which `read_lines` leaves out.
    """
    try:
        with path.open("ab") as file:
            file.write(_line(seal(record, run)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritten(path, error) from error


def read_lines(path: pathlib.Path, run: str, epochs: int) -> list[dict[str, Any]]:
    """Read the metrics of epochs; a last line that was cut short is left out.

    Args:
        path: the file; if there is none, there are no records.
        run: identity of the run.
        epochs: how many epochs have come to their end, so that their lines must be there.

    Raises:
        ValueError: a line is not what `append_line` wrote, or lines are missing.
    """
    if not path.is_file():
        return []
    remedy = "Restore the file, or delete it: training does not need it."
    records: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            record = unseal(parse(line), run)
            epoch = record["epoch"]
        except (ValueError, KeyError) as error:
            raise ArgumentError(
                f"{path}, line {number} is not the metrics of an epoch of this run: {error}. {remedy}"
            ) from error
        if records and epoch != records[-1]["epoch"] + 1:
            raise ArgumentError(
                f"{path}, line {number} is of epoch {epoch}, after epoch {records[-1]['epoch']}. {remedy}"
            )
        records.append(record)
    last = records[-1]["epoch"] if records else 0
    if last < epochs:
        raise ArgumentError(f"{path} ends with epoch {last}, and {epochs} epochs are over: it was cut short. {remedy}")
    return records


def keep_lines(path: pathlib.Path, run: str, epochs: int) -> None:
    """Cut a JSONL file of metrics down to the first epochs, if it has more."""
    kept = [record for record in read_lines(path, run, epochs) if record["epoch"] <= epochs]
    text = b"".join(_line(seal(record, run)) for record in kept)
    if path.is_file() and path.read_bytes() != text:
        write_atomically(path, lambda file: file.write(text))
