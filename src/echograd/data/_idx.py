"""Reader of the IDX format, and MNIST, which is published in it."""

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np
from jaxtyping import Num

from ._dataset import Dataset, Split

NAME = "mnist"
TRAIN, TEST, PIXELS, CLASSES = 60_000, 10_000, 784, 10
FILES = tuple(f"{side}-{what}" for side in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
SOURCE = "MNIST, Y. LeCun, C. Cortes and C. Burges. Cite LeCun et al., Proc. IEEE 86(11):2278-2324, 1998."
LICENCE = "None stated by the authors; see the source before redistributing it."
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | pathlib.Path) -> Num[np.ndarray, "..."]:
    """Read an array from an IDX file, compressed with gzip or not.

    Args:
        path: the file. Whether it is compressed is told by what is in it, not by its name.

    Returns:
        The array, in the dtype and shape that the file declares.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not of this format, is damaged or cut short.

    Example:
        ```python
        read_idx("train-images-idx3-ubyte.gz").shape  # (60000, 28, 28)
        ```
    """
    path = pathlib.Path(path)
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is no whole gzip file ({error}). Copy or download it again.") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise ValueError(
            f"{path} is not an IDX file: it begins with {content[:4]!r}, not with two zeros, a known type and the "
            "number of axes."
        )
    dtype, axes = np.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{path} is cut short: it ends within its header.")
    shape = struct.unpack(f">{axes}I", content[4:start])
    wanted = start + math.prod(shape) * dtype.itemsize
    if len(content) != wanted:
        raise ValueError(f"{path} holds {len(content)} bytes, and shape {shape} takes {wanted}: it is damaged.")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def find_mnist(root: pathlib.Path) -> pathlib.Path | None:
    """Find the folder that holds the four files, or None."""
    places = (root / NAME, root / NAME.upper(), root)
    return next((place for place in places if all(_file(place, name) for name in FILES)), None)


def read_mnist(folder: str | pathlib.Path) -> Dataset:
    """Read MNIST from its four published files.

    A digit is a sequence of 784 grey levels, its rows one after another, from 0 to 1; `inputs[..., 0]` is the flat
    image. The split is the published one, 60,000 to train and 10,000 to test.

    Args:
        folder: where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
            ``t10k-labels-idx1-ubyte`` are, with or without ``.gz``.

    Returns:
        The set. It has no validation split; see `Dataset.with_validation`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file holds something else.
    """
    folder = pathlib.Path(folder)
    files = {name: _file(folder, name) for name in FILES}
    missing = [name for name, file in files.items() if file is None]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)} (with or without .gz) not in {folder}.")
    arrays = [read_idx(file) for file in files.values() if file is not None]
    splits = []
    for images, labels, cases in zip(arrays[::2], arrays[1::2], (TRAIN, TEST), strict=True):
        bytes_only = images.dtype == labels.dtype == np.uint8
        if images.shape != (cases, 28, 28) or labels.shape != (cases,) or not bytes_only:
            raise ValueError(
                f"{folder} does not hold MNIST: images are {images.dtype}{images.shape} and labels "
                f"{labels.dtype}{labels.shape}, and {cases} of 28 by 28 bytes with a byte each are published."
            )
        if labels.max() >= CLASSES:
            raise ValueError(f"{folder} does not hold MNIST: a label is {labels.max()}, and they go from 0 to 9.")
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
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)
