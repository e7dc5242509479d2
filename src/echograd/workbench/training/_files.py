"""Files of a run: checkpoints, and metrics with one line an epoch."""

import contextlib
import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeVar

import equinox as eqx

from echograd import RunError
from echograd._internal._files import finite, unwritten, write_atomically

from ..data import DataError

_T = TypeVar("_T")

FORMAT = 3
_CHECKSUM = "checksum"
_OF_RUN = "a checkpoint of this run"
_AGAIN = (
    "Restore the file; or delete it together with last.eqx, and resume the run, which then trains from its beginning "
    "to the same numbers."
)


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path) -> Iterator[None]:
    """Lock a folder against other processes that call this. The system releases the lock when the process ends.

    Raises:
        RunError: another process holds the lock.
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
                f"another process is training in {folder}. Two processes would overwrite each other's checkpoints. "
                "Wait until it ends, stop it, or choose another out= (--out)."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def seal(record: dict[str, Any], run: str) -> dict[str, Any]:
    """Return a record with the identity of the run and a checksum over both, for a JSON file.

    Args:
        record: plain values; NaN and infinities become null.
        run: identity of the run.
    """
    record = {**finite(record), "run": run}
    return {**record, _CHECKSUM: _checksum(record)}


def unseal(record: Any, run: str | None) -> dict[str, Any]:
    """Return the record that was passed to `seal`.

    Args:
        record: the record read from the file.
        run: identity of the run that the record must belong to; None accepts any.

    Raises:
        DataError: the record was edited or damaged, or belongs to another run.
    """
    if not isinstance(record, dict) or not isinstance(record.get("run"), str) or _CHECKSUM not in record:
        raise DataError("it has no identity of a run, or no checksum")
    record = dict(record)
    if record.pop(_CHECKSUM) != _checksum(record):
        raise DataError("its checksum is wrong, so it was edited or damaged")
    owner = record.pop("run")
    if run not in (None, owner):
        raise DataError(f"it belongs to run {owner}, and config.json to run {run}")
    return record


def read_json(path: pathlib.Path) -> Any:
    """Read one value from a JSON file. Raise `ValueError` if the file is not JSON or nested too deep."""
    return parse(path.read_bytes())


def parse(text: bytes) -> Any:
    """Parse JSON. Raise `ValueError` if the text is not JSON or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError("it is nested too deep") from None


def save_checkpoint(path: pathlib.Path, run: str, header: dict[str, Any], tree: Any) -> None:
    """Write a checkpoint atomically: one line of JSON, then the array leaves of a tree, with checksums over both."""
    arrays = _serialised(tree)
    line = _line(seal({"format": FORMAT, **header, "arrays": zlib.crc32(arrays)}, run))

    def write(file: BinaryIO) -> None:
        file.write(line)
        file.write(arrays)

    write_atomically(path, write)


def load_header(path: pathlib.Path, run: str | None, what: str = _OF_RUN, remedy: str = _AGAIN) -> dict[str, Any]:
    """Read the first line of a checkpoint, without its arrays; arguments as for `load_checkpoint`.

    Raises:
        DataError: the file is not a checkpoint of this run, or damaged.
    """
    with explained(path, what, remedy), path.open("rb") as file:
        return _header(file, run)


def load_checkpoint(
    path: pathlib.Path, run: str | None, like: _T, what: str = _OF_RUN, remedy: str = _AGAIN
) -> tuple[dict[str, Any], _T]:
    """Read the header and the tree of a checkpoint.

    Args:
        path: the file.
        run: identity of the run; None accepts any.
        like: a tree of the same structure, with arrays of the same shapes and dtypes.
        what: what the file should be, for the message.
        remedy: the last sentence of the message.

    Raises:
        DataError: the file is not a checkpoint of this run and model, or damaged.
    """
    with explained(path, what, remedy), path.open("rb") as file:
        header = _header(file, run)
        arrays, wanted = file.read(), len(_serialised(like))
        found, written = zlib.crc32(arrays), header.pop("arrays")
        if found != written:
            raise DataError(f"its arrays have the checksum {found}, but {written} was written")
        if len(arrays) != wanted:
            raise DataError(f"its arrays take {len(arrays):,} bytes, and those of this model {wanted:,}")
        return header, eqx.tree_deserialise_leaves(io.BytesIO(arrays), like)


def _header(file: BinaryIO, run: str | None) -> dict[str, Any]:
    header = unseal(parse(file.readline()), run)
    form = header.pop("format")
    if form != FORMAT:
        raise DataError(f"it has format {form}, and this version reads format {FORMAT}")
    return header


@contextlib.contextmanager
def explained(path: pathlib.Path, what: str = _OF_RUN, remedy: str = _AGAIN) -> Iterator[None]:
    """Raise `DataError` with the name of the file and the remedy if a checkpoint cannot be read."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RuntimeError, EOFError, MemoryError) as error:
        why = str(error) if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is not {what}: {why}. {remedy}") from error


def _serialised(tree: Any) -> bytes:
    """Return the array leaves of a tree as bytes of a checkpoint."""
    arrays = io.BytesIO()
    eqx.tree_serialise_leaves(arrays, tree)
    return arrays.getvalue()


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode()


def _checksum(record: dict[str, Any]) -> int:
    """Return a checksum of the values of a record; white space in the file does not change it."""
    try:
        return zlib.crc32(json.dumps(record, sort_keys=True, allow_nan=False).encode())
    except RecursionError:
        raise DataError("it is nested too deep") from None


def append_line(path: pathlib.Path, run: str, record: dict[str, Any]) -> None:
    """Append one object to a JSONL file.

    Raises:
        OSError: the file cannot be written. Part of the line may be there; `read_lines` ignores it.
    """
    try:
        with path.open("ab") as file:
            file.write(_line(seal(record, run)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritten(path, error) from error


def read_lines(path: pathlib.Path, run: str, epochs: int) -> list[dict[str, Any]]:
    """Read the metrics of all epochs; ignore an incomplete last line.

    Args:
        path: the file; without it there are no records.
        run: identity of the run.
        epochs: number of finished epochs; their lines must be there.

    Raises:
        DataError: a line was not written by `append_line`, or lines are missing.
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
            raise DataError(
                f"{path}, line {number} does not hold metrics of an epoch of this run: {error}. {remedy}"
            ) from error
        if records and epoch != records[-1]["epoch"] + 1:
            raise DataError(f"{path}, line {number} is of epoch {epoch}, after epoch {records[-1]['epoch']}. {remedy}")
        records.append(record)
    last = records[-1]["epoch"] if records else 0
    if last < epochs:
        raise DataError(f"{path} ends with epoch {last}, but {epochs} epochs are finished: it is truncated. {remedy}")
    return records


def keep_lines(path: pathlib.Path, run: str, epochs: int) -> None:
    """Remove the metrics of all later epochs from a JSONL file."""
    kept = [record for record in read_lines(path, run, epochs) if record["epoch"] <= epochs]
    text = b"".join(_line(seal(record, run)) for record in kept)
    if path.is_file() and path.read_bytes() != text:
        write_atomically(path, lambda file: file.write(text))
