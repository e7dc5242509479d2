"""IDX files, and MNIST made of them."""

import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest

from echograd.workbench.data import _idx, available, load, read_idx, read_mnist
from echograd.workbench.data._idx import FILES

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]


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
        (GOOD + b"!", "it holds more"),
        (gzip.compress(GOOD, mtime=0)[:-4], "damaged or truncated gzip file"),
        (gzip.compress(GOOD[:-1], mtime=0), "it holds only 23"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "damaged or truncated gzip file"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + bytes(99), "takes 79228162458924105385300197375 bytes, but"),
        (gzip.compress(b"\0\0\x08\x01\x20\0\0\0"), "takes 536870912 bytes, but .* holds 1 to 268435456"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\0", "is damaged"),
        (b"\0\0\x08\x02\0\0\0\0\xff\xff\xff\xff", "is damaged"),
    ],
    ids=[
        "empty", "another-magic", "another-type", "cut-header", "cut", "too-long", "cut-gzip", "cut-before-gzip",
        "gzip-checksum", "impossible-shape", "bomb", "axes", "no-values",
    ],
)  # fmt: skip
def test_what_is_not_whole_is_refused(tmp_path, content, complaint):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_idx(tmp_path / "x")


def test_a_bomb_is_not_unpacked(tmp_path):
    """A file that unpacks to 256 MiB is read as far as its header says."""
    path = tmp_path / "x.gz"
    zeros = gzip.compress(bytes(1 << 24), 1)
    path.write_bytes(gzip.compress(packed(np.zeros(1000, np.uint8), 8)) + 16 * zeros)
    tracemalloc.start()
    with pytest.raises(ValueError, match="it holds more"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 21
    tracemalloc.stop()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with files that replace those of MNIST; half of them are compressed."""
    place = tmp_path / "MNIST"
    place.mkdir()
    sums = {}
    rng = np.random.default_rng(0)
    for side, cases in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((cases, 28, 28), np.uint8)
        images[:, 3, 5] = rng.integers(256, size=cases)
        labels = rng.integers(10, size=cases).astype(np.uint8)
        (place / f"{side}-images-idx3-ubyte.gz").write_bytes(gzip.compress(packed(images, 8), 1))
        (place / f"{side}-labels-idx1-ubyte").write_bytes(packed(labels, 8))
        sums[f"{side}-images-idx3-ubyte"] = hashlib.sha256(packed(images, 8)).hexdigest()
        sums[f"{side}-labels-idx1-ubyte"] = hashlib.sha256(packed(labels, 8)).hexdigest()
    monkeypatch.setattr(_idx, "_SUMS", sums)
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


def test_other_files_are_not_taken_for_mnist(folder, monkeypatch):
    place = folder / "MNIST"
    labels = place / "t10k-labels-idx1-ubyte"
    good = read_idx(labels)
    # Other labels, then an array of another dtype, then of another shape, as Fashion-MNIST or a cut file would be.
    for array, code in (((good + 1) % 10, 0x08), (good.astype(np.int8), 0x09)):
        labels.write_bytes(packed(array, code))
        with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte is not the file of MNIST: .*`read_idx`"):
            read_mnist(place)
    labels.write_bytes(packed(good[1:], 0x08))
    with pytest.raises(ValueError, match=r"t10k-labels.* shape \(9999,\), not \(10000,\)"):
        read_mnist(place)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        read_mnist(place)
    with pytest.raises(FileNotFoundError, match=r"Put its four published files.*into .*mnist"):
        load("mnist", root=folder)


def test_the_published_checksums_need_no_file_of_checksums(folder, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is not the file of MNIST.*is ba891046"):
        load("mnist", root=folder)


def test_what_is_not_there_is_said_where_to_put(tmp_path):
    assert {e.name: e.state for e in available(tmp_path)}["mnist"] == "missing"
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.*mnist"):
        load("mnist", root=tmp_path)
