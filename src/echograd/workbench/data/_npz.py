"""Safe reader of .npz and .npy files: numbers and strings only, with sizes checked before memory is allocated."""

import math
import pathlib
import zipfile
import zlib
from typing import IO, Any

import numpy as np

from . import _reading
from ._errors import DataError
from ._own_cases import Collected, Reading

_RATIO, _FREE = 100, 1 << 28  # limit on decompressed bytes: 100 per byte of the file, or 256 MiB
_KINDS = "biufUS"
_PARTS = ("X", "y", "lengths", "groups")


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read all arrays of a .npz file by name.

    Raises:
        OSError: the file cannot be read.
        DataError: it is not such a file, or damaged, or an array holds Python objects.
    """
    with _reading.open_file(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
                total, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
                if total > max(_FREE, _RATIO * packed):
                    raise DataError(
                        f"{path} claims to hold {total} bytes in {packed} compressed bytes, which no series of numbers "
                        "does. The file is damaged."
                    )
                found = {}
                for entry in entries:
                    name = entry.filename.removesuffix(".npy")
                    with archive.open(entry) as stream:
                        found[name] = _array(stream, entry.file_size, f"{path}, array {name!r}")
                return found
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{path} is not a .npz file, or it is damaged: {error}. Write it with np.savez.") from error


def read_npy(path: pathlib.Path) -> np.ndarray:
    """Read the array of a .npy file; errors as in `read_npz`."""
    with _reading.open_file(path) as file:
        size = path.stat().st_size
        return _array(file, size, str(path))


def _array(stream: IO[bytes], size: int, where: str) -> np.ndarray:
    """Read one array of a stream of `size` bytes."""
    form = np.lib.format
    try:
        version = form.read_magic(stream)
        read_header = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(stream)
    except (ValueError, KeyError, SyntaxError, UnicodeError) as error:
        raise DataError(f"{where} is not a NumPy array: {error}. Write it with np.save or np.savez.") from error
    if dtype.kind not in _KINDS:
        objects = " Python objects (a list of arrays of unequal lengths, say)" if dtype.hasobject else f" {dtype}"
        raise DataError(
            f"{where} holds{objects}. Save numbers or strings: pad series to one length, and add an array 'lengths' "
            "with the number of valid steps of each."
        )
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > size or min(shape, default=0) < 0:
        raise DataError(f"{where} is damaged: its shape {shape} takes {wanted} bytes, but it has {size}.")
    content = stream.read(wanted)
    if len(content) != wanted or stream.read(1):
        raise DataError(f"{where} is damaged: its shape {shape} takes {wanted} bytes, and it holds fewer or more.")
    order = "F" if fortran else "C"
    return np.frombuffer(content, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))


def collect(path: pathlib.Path, arrays: dict[str, np.ndarray], suffix: str, how: Reading) -> Collected:
    """Return the cases in the arrays X, y, lengths and groups, with a suffix such as "_train"."""
    named = {part: arrays.get(part + suffix) for part in _PARTS}
    X, y, lengths, groups = (named[part] for part in _PARTS)
    if X is None:
        raise DataError(
            f"{path} has no array {'X' + suffix!r}, but {', '.join(sorted(arrays)) or 'nothing'}. Save series as X of "
            "shape (cases, channels, steps) and labels as y: np.savez(file, X=X, y=y)."
        )
    where = f"{path}, array {'X' + suffix!r}"
    if X.dtype.kind not in "iufb" or X.ndim not in (2, 3) or 0 in X.shape:
        raise DataError(
            f"{where} is {X.dtype} of shape {X.shape}; it must be real numbers of shape (cases, channels, steps) or "
            "(cases, steps)."
        )
    X = X[:, None] if X.ndim == 2 else X
    found = Collected(path, how)
    labels = None if y is None else _texts(y, len(X), f"{path}, array {'y' + suffix!r}")
    if labels is None and how.labelled:
        raise DataError(
            f"{path} has no array {'y' + suffix!r} with the label of every case. Add it: np.savez(file, X=X, y=y)."
        )
    sources = None if groups is None else _texts(groups, len(X), f"{path}, array {'groups' + suffix!r}")
    if lengths is not None and (lengths.dtype.kind not in "iu" or lengths.shape != (len(X),)):
        raise DataError(
            f"{path}, array {'lengths' + suffix!r} is {lengths.dtype} of shape {lengths.shape}; it must be integers of "
            f"shape ({len(X)},)."
        )
    for i, case in enumerate(X):
        length = case.shape[1] if lengths is None else int(lengths[i])
        if not 1 <= length <= case.shape[1]:
            raise DataError(f"{where}, case {i}: its length is {length}, but there are {case.shape[1]} steps.")
        label = None if labels is None else labels[i]
        found.add(
            case.T[:length].astype(np.float64), f"{where}, case {i}", label, None if sources is None else sources[i]
        )
    cases, channels, steps = X.shape
    found.notes.append(f"{'X' + suffix} is taken as {cases} cases × {channels} channels × {steps} steps.")
    if channels > steps:
        found.notes.append(
            f"Warning: {channels} channels and only {steps} steps. If the axes are (cases, steps, channels), save "
            "X.transpose(0, 2, 1)."
        )
    return found


def parts_of(arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Return the suffixes of the arrays: ("_train", "_test") or ("",)."""
    return ("_train", "_test") if "X_train" in arrays else ("",)


def collect_one(path: pathlib.Path, how: Reading) -> Collected:
    """Return the single case of a .npy file of shape (channels, steps) or (steps,), without a label."""
    array = read_npy(path)
    if array.dtype.kind not in "iufb" or array.ndim not in (1, 2) or 0 in array.shape:
        raise DataError(
            f"{path} is {array.dtype} of shape {array.shape}; a case has the shape (channels, steps) or (steps,)."
        )
    found = Collected(path, how)
    found.add(np.atleast_2d(array).T.astype(np.float64), str(path), None)
    return found


def _texts(values: Any, cases: int, where: str) -> list[str]:
    """Return labels or groups as texts."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (cases,):
        raise DataError(f"{where} has shape {values.shape}; it must have shape ({cases},), one for every case of X.")
    return [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in values.tolist()]
