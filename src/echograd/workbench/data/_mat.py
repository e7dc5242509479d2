"""Reader of numeric matrices in MATLAB files of version 5. Nothing in a file is executed."""

import math
import pathlib
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from ._errors import DataError
from ._reading import read_bytes

_LARGEST = 1 << 30  # bytes of one variable
_MATRIX, _COMPRESSED = 14, 15
# Types of stored numbers. A variable of class double may be stored as smaller integers.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x08


def read_mat(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the real numeric matrices of a MATLAB file by name, as float64. Other variables are left out.

    Args:
        path: a file of version 5 to 7, compressed or not. (Version 7.3 is HDF5.)

    Raises:
        OSError: the file cannot be read.
        DataError: the file has another format, is truncated, or contradicts its own sizes.
    """
    data = read_bytes(path)
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise DataError(
            f"{path} is not a MATLAB file of version 5 to 7. Save it in MATLAB with: save(name, '-v7', variables)."
        )
    order = "<" if data[126:128] == b"IM" else ">"
    found = {}
    try:
        for kind, content in _elements(data[128:], order):
            if kind == _COMPRESSED:
                ((kind, content),) = _elements(_inflate(content), order)
            if kind != _MATRIX:
                raise ValueError(f"it has an element of type {kind} where a variable should be")
            found |= _matrix(content, order)
    except (ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is damaged or truncated ({error}). Copy or download it again.") from error
    return found


def _inflate(content: bytes) -> bytes:
    stream = zlib.decompressobj()
    plain = stream.decompress(content, _LARGEST)
    if not stream.eof:
        raise ValueError(f"a compressed variable is truncated, or larger than {_LARGEST} bytes")
    return plain


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the elements of a byte string. Elements start at multiples of 8 bytes."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if kind >> 16:  # a small element: size and type in the first word, content in the second
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            at += 8
        else:
            at = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data):
            raise ValueError(f"an element of {size} bytes, but {len(data) - start} are left")
        yield kind, data[start : start + size]


def _matrix(content: bytes, order: str) -> dict[str, np.ndarray]:
    """Return a variable by its name; an empty dictionary if it is not a real numeric matrix."""
    parts = _elements(content, order)
    flags = next(parts, (0, b""))[1]
    (word,) = struct.unpack_from(order + "I", flags)
    if word & 0xFF not in _NUMERIC_CLASSES or word >> 8 & _COMPLEX:
        return {}
    (_, sizes), (_, name), (kind, numbers), *rest = parts
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if rest or kind not in _NUMBERS or min(shape, default=-1) < 0:
        raise ValueError(f"a matrix of shape {shape} with numbers of type {kind} and {len(rest)} further elements")
    values = np.frombuffer(numbers, order + _NUMBERS[kind])
    if values.size != math.prod(shape):
        raise ValueError(f"{values.size} numbers for shape {shape}")
    return {name.decode("ascii"): values.astype(np.float64).reshape(shape, order="F")}
