"""IDX files, and MNIST made of them."""

import gzip
import struct

import numpy as np
import pytest

from echograd.data import available, load, read_idx, read_mnist
from echograd.data._idx import FILES


def packed(array, code):
    big = array.astype(array.dtype.newbyteorder(">"))
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + big.tobytes()


ARRAYS = [
    (np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 0x08),
    (np.array([-3, 500], np.int16), 0x0B),
    (np.array([[1.5], [-2.25]], np.float32), 0x0D),
]


@pytest.mark.parametrize(("array", "code"), ARRAYS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_was_written_is_read(tmp_path, array, code, pack):
    (tmp_path / "x").write_bytes(pack(packed(array, code)))
    found = read_idx(tmp_path / "x")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


GOOD = packed(*ARRAYS[0])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not an IDX file"),
        (b"PNG\0....", "not an IDX file"),
        (b"\0\0\x07\1....", "not an IDX file"),
        (GOOD[:10], "ends within its header"),
        (GOOD[:-1], "damaged"),
        (GOOD + b"!", "damaged"),
        (gzip.compress(GOOD, mtime=0)[:-4], "no whole gzip file"),
    ],
    ids=["empty", "another-magic", "another-type", "cut-header", "cut", "too-long", "cut-gzip"],
)
def test_what_is_not_whole_is_refused(tmp_path, content, complaint):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_idx(tmp_path / "x")


@pytest.fixture
def folder(tmp_path):
    """A data folder with files like those of MNIST: its shapes, other digits; half of them compressed."""
    place = tmp_path / "MNIST"
    place.mkdir()
    rng = np.random.default_rng(0)
    for side, cases in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((cases, 28, 28), np.uint8)
        images[:, 3, 5] = rng.integers(256, size=cases)
        labels = rng.integers(10, size=cases).astype(np.uint8)
        (place / f"{side}-images-idx3-ubyte.gz").write_bytes(gzip.compress(packed(images, 8), 1))
        (place / f"{side}-labels-idx1-ubyte").write_bytes(packed(labels, 8))
    return tmp_path


def test_mnist_by_name(folder):
    assert {e.name: e.state for e in available(folder)}["mnist"] == "cached"
    dataset = load("mnist", root=folder)
    assert dataset.validation is None
    assert (len(dataset.train), len(dataset.test), dataset.length, dataset.classes) == (60_000, 10_000, 784, 10)
    level = dataset.test.inputs[:, 3 * 28 + 5, 0]
    assert 0.4 < level.mean() < 0.6
    assert level.max() == 1
    images, labels = (read_idx(folder / "MNIST" / name) for name in (f"{FILES[2]}.gz", FILES[3]))
    np.testing.assert_array_equal(dataset.test.targets, labels)
    np.testing.assert_allclose(dataset.test.inputs[:, :, 0], images.reshape(10_000, 784) / 255, rtol=1e-6)


def test_other_files_are_not_taken_for_mnist(folder):
    place = folder / "MNIST"
    labels = place / "t10k-labels-idx1-ubyte"
    labels.write_bytes(packed(np.full(10_000, 10, np.uint8), 8))
    with pytest.raises(ValueError, match="a label is 10"):
        read_mnist(place)
    for array, code in ((np.full(10_000, -1, np.int8), 0x09), (np.full(10_000, 2.5, np.float32), 0x0D)):
        labels.write_bytes(packed(array, code))
        with pytest.raises(ValueError, match=rf"labels {array.dtype}"):
            read_mnist(place)
    labels.write_bytes(packed(np.zeros(9_999, np.uint8), 8))
    with pytest.raises(ValueError, match="does not hold MNIST"):
        read_mnist(place)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        read_mnist(place)
    with pytest.raises(FileNotFoundError, match=r"Put its four published files.*into .*mnist"):
        load("mnist", root=folder)


def test_what_is_not_there_is_said_where_to_put(tmp_path):
    assert {e.name: e.state for e in available(tmp_path)}["mnist"] == "missing"
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.*mnist"):
        load("mnist", root=tmp_path)
