"""Reader of the IDX format, and of MNIST, which is published in it."""

import hashlib
import math
import os
import pathlib
import struct

import numpy as np
from jaxtyping import Num

from .._paths import as_path
from ._dataset import Dataset
from ._errors import DataError
from ._reading import Unpacked
from ._split import Split

NAME = "mnist"
TRAIN, TEST, PIXELS, CLASSES = 60_000, 10_000, 784, 10
FILES = tuple(f"{side}-{what}" for side in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
SOURCE = "MNIST, Y. LeCun, C. Cortes and C. Burges. Cite LeCun et al., Proc. IEEE 86(11):2278-2324, 1998."
LICENCE = "None stated by the authors; see the source before redistributing it."
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_AXES = 32  # the largest number of axes that every NumPy supports
_SUMS = {  # SHA-256 of the files without compression
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read_idx(path: str | pathlib.Path) -> Num[np.ndarray, "..."]:
    """Read an array from an IDX file, compressed with gzip or not.

    Args:
        path: the file. Its first bytes tell whether it is compressed, not its name.

    Returns:
        The array, in the dtype and shape that the file declares.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentTypeError: `path` is not a path.
        DataError: the file has another format, is damaged or truncated.

    Example:
        ```python
        read_idx("train-images-idx3-ubyte.gz").shape  # (60000, 28, 28)
        ```
    """
    return _read(as_path("read_idx", "path", path))[0]


def _read(path: pathlib.Path, expected: tuple[int, ...] | None = None) -> tuple[np.ndarray, str]:
    """Return the array of a file, and the SHA-256 of its decompressed contents.

    If the header does not have the expected shape, raise before reading the values.
    """
    with Unpacked(path) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
            raise DataError(
                f"{path} is not an IDX file: it begins with {head!r} instead of two zero bytes, a known type and the "
                "number of axes."
            )
        dtype, axes = np.dtype(_DTYPES[head[2]]), head[3]
        sizes = file.read(4 * axes)
        if len(sizes) < 4 * axes:
            raise DataError(f"{path} is truncated: it ends within its header. Copy or download it again.")
        shape = struct.unpack(f">{axes}I", sizes)
        wanted = math.prod(shape) * dtype.itemsize
        if expected is not None and shape != expected:
            raise DataError(f"{path} holds an array of shape {shape}, not {expected}. Is it a file of another set?")
        if axes > _AXES or not wanted or 4 + len(sizes) + wanted > file.most:
            raise DataError(
                f"{path} is damaged: an array of the shape {str(shape)[:80]} in its header takes {wanted} bytes, but a "
                f"file of this size holds 1 to {file.most} bytes."
            )
        content = file.read(wanted)
        more = file.read(1)
    if len(content) != wanted or more:
        found = "more" if more else f"only {len(content)}"
        raise DataError(f"{path} is damaged: its shape {shape} takes {wanted} bytes of values, but it holds {found}.")
    digest = hashlib.sha256(head + sizes)
    digest.update(content)
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("=")), digest.hexdigest()


def find_mnist(root: pathlib.Path) -> pathlib.Path | None:
    """Return the folder that holds the four files, or None."""
    places = (root / NAME, root / NAME.upper(), root)
    return next((place for place in places if all(_file(place, name) for name in FILES)), None)


def read_mnist(folder: str | pathlib.Path) -> Dataset:
    """Read MNIST from its four published files.

    A digit is a sequence of 784 grey levels from 0 to 1, row after row; `inputs[..., 0]` is the flat image. The split
    is the published one: 60,000 training and 10,000 test cases.

    Args:
        folder: the folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
            ``t10k-labels-idx1-ubyte``, with or without ``.gz``.

    Returns:
        The data set. It has no validation split; see `Dataset.with_validation`.

    Raises:
        FileNotFoundError: a file is missing.
        ArgumentTypeError: `folder` is not a path.
        DataError: the SHA-256 of a file is not that of the published file (for example, a file of another data set
            with the same name and shape).
    """
    folder = as_path("read_mnist", "folder", folder)
    files = {name: _file(folder, name) for name in FILES}
    missing = [name for name, file in files.items() if file is None]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)} (with or without .gz) is missing in {folder}.")
    arrays = []
    for (name, file), shape in zip(files.items(), ((TRAIN, 28, 28), (TRAIN,), (TEST, 28, 28), (TEST,)), strict=True):
        assert file is not None
        values, digest = _read(file, shape)
        if digest != _SUMS[name]:
            raise DataError(
                f"{file} is not the file of MNIST: the SHA-256 of its contents (without gzip) is {digest}, published "
                f"is {_SUMS[name]}. Download it again. (`read_idx` reads files of other data sets.)"
            )
        arrays.append(values)
    splits = []
    for images, labels, cases in zip(arrays[::2], arrays[1::2], (TRAIN, TEST), strict=True):
        grey = images.reshape(cases, PIXELS, 1).astype(np.float32) / np.float32(255)
        splits.append(Split(grey, labels.astype(np.int32), np.full(cases, PIXELS, np.int32)))
    train, test = splits
    return Dataset(
        NAME,
        train,
        None,
        test,
        "classification",
        tuple(map(str, range(CLASSES))),
        ("grey level",),
        None,
        "Handwritten digits, 28 by 28 pixels read row by row, with the published split.",
        SOURCE,
        LICENCE,
    )


def _file(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if os.path.isfile(file)), None)
