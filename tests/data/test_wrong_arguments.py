"""Wrong arguments: every function of `echograd.workbench.data` quotes the argument and says what it takes."""

import os

import numpy as np
import pytest

from echograd.workbench.data import (
    Batches,
    Cases,
    Dataset,
    Split,
    available,
    data_folder,
    dataset_from_cases,
    load,
    read_arff,
    read_idx,
    read_mnist,
    read_ppg_dalia,
    read_ts,
    read_tsv,
    read_wfdb,
    read_wfdb_annotations,
    slope_envelope,
)

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

READERS = [read_arff, read_idx, read_ts, read_tsv, read_wfdb, read_wfdb_annotations]
SPLIT = Split.from_series([np.full((3, 2), float(i)) for i in range(6)], np.arange(6) % 2)
DATASET = Dataset("toy", SPLIT, None, SPLIT, "classification", ("a", "b"), ("x", "y"), 10.0, "", "", "")
F32, I32 = np.float32, np.int32


def dataset(**changes):
    fields = ("name", "train", "validation", "test", "task", "class_names", "channel_names", "sample_rate")
    return Dataset(**{name: getattr(DATASET, name) for name in fields} | changes, description="", source="", licence="")


@pytest.mark.parametrize("door", [*READERS, read_mnist, read_ppg_dalia, load, data_folder, available])
@pytest.mark.parametrize("value", [5, b"x", 1.5, ["x"], np.zeros(3), None])
def test_paths_and_names_are_texts(door, value):
    if value is None and door in (data_folder, available):
        return
    with pytest.raises(TypeError, match=r"^\w+: (path|folder|name|root)=.* is not (a path|the name of a data set)"):
        door(value)


@pytest.mark.parametrize("door", READERS)
def test_paths_that_are_no_files(door, tmp_path):
    for value, error, message in (
        ("", ValueError, "path='' names no file"),
        ("a\0b", ValueError, "names no file"),
        (
            "n" * 5000,
            OSError,
            r"^(\[Errno \d+\] )?n+\.\.\.[n.atrhe]+ \(500\d characters\) cannot be read: File name too",
        ),
        (tmp_path / "nowhere", FileNotFoundError, "nowhere.* is missing"),
    ):
        with pytest.raises(error, match=message):
            door(value)
    for name in ("x", "x.hea", "x.atr"):
        (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=r"is a folder\. Pass a file in it"):
        door(tmp_path / "x")
    for name in ("p", "p.hea", "p.atr"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="is a device or a pipe"):
        door(tmp_path / "p")


def test_names_that_are_no_sets(tmp_path):
    for name in ("n" * 5000, "a\0b", "..", "~", "x" * 61):
        with pytest.raises(ValueError, match=r"no data set .*Known: ecg-rhythm") as caught:
            load(name, root=tmp_path)
        assert len(str(caught.value)) < 900
    with pytest.raises(ValueError, match=r"root='~nobody-of-this-name/x' cannot be resolved.*Write the whole path"):
        load("FordA", root="~nobody-of-this-name/x")


@pytest.mark.parametrize("value", [None, 5, "fill", ["error"], True])
def test_the_policy_for_missing_values(value, tmp_path):
    for door in (read_arff, read_ts, read_tsv, load):
        with pytest.raises(ValueError, match=r"missing=.*; choose one of 'error', 'interpolate'"):
            door("ecg-afib", missing=value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: load("ecg-afib", download="no"), TypeError, "load: download='no' must be True or False"),
        (lambda: Split(None, None, None), TypeError, "Split: inputs=None is not a NumPy array"),
        (lambda: Split(SPLIT.inputs, [0] * 6, SPLIT.lengths), TypeError, r"targets=\[0, .*is not a NumPy array"),
        (
            lambda: Split(SPLIT.inputs, SPLIT.targets, SPLIT.lengths, "abc"),
            TypeError,
            "groups='abc' is not a NumPy array",
        ),
        (
            lambda: Split(SPLIT.inputs, SPLIT.targets - 1, SPLIT.lengths),
            ValueError,
            "at least 0; the smallest target is -1",
        ),
        (
            lambda: Split(SPLIT.inputs, SPLIT.targets, SPLIT.lengths[:, None]),
            ValueError,
            r"lengths must have shape \(cases,\)",
        ),
        (lambda: Split.from_series(None, np.zeros(1, I32)), TypeError, "series=None is not a sequence of arrays"),
        (lambda: Split.from_series([], np.zeros(0, I32)), ValueError, "series is empty"),
        (lambda: Split.from_series([[1.0]], np.zeros(1, I32)), TypeError, r"series\[0\]=\[1.0\] is not a NumPy array"),
        (lambda: Split.from_series([np.ones((2, 1)) * 1j], np.zeros(1, I32)), TypeError, "not complex128"),
        (
            lambda: Split.from_series([np.array([["a"]])], np.zeros(1, I32)),
            TypeError,
            r"series\[0\] must hold real numbers",
        ),
        (lambda: Split.from_series([np.ones((0, 1))], np.zeros(1, I32)), ValueError, "without 0"),
        (lambda: Split.from_series([np.ones((2, 1))], None), TypeError, "targets=None is not a NumPy array"),
        (lambda: Split.from_series([np.ones((2, 1))], np.array([True])), TypeError, "real numbers, not bool"),
        (lambda: Split.from_series([np.ones((2, 1))], np.array([1 << 40])), ValueError, "overflow int32"),
        (lambda: Split.from_series([np.ones((2, 1))], np.array([1e300])), ValueError, "target of case 0 is not finite"),
        (lambda: Split.from_series([np.full((2, 1), 1e300)], np.zeros(1, I32)), ValueError, "case 0 are inf at step 0"),
        (
            lambda: Split.from_series([np.ones((2, 1))], np.zeros(1, I32), length=2.5),
            ValueError,
            "length=2.5; the padded length must be a Python integer",
        ),
        (
            lambda: Split.from_series([np.ones((2, 1))], np.zeros(1, I32), length=10**12),
            ValueError,
            r"series of 2 to 2 steps, padded to 1000000000000, .* \(1, 1000000000000, 1\) and 4000000000000 bytes",
        ),
        (
            lambda: Split.from_series([np.ones((1, 1))] * 9999 + [np.ones((99_999, 1))], np.zeros(10_000, I32)),
            ValueError,
            "series of 1 to 99999 steps, padded to 99999, .* for 109998 values",
        ),
        (lambda: SPLIT.take([99]), IndexError, "no case 99; the 6 cases go from 0 to 5"),
        (lambda: SPLIT.take([-1]), IndexError, "no case -1"),
        (lambda: SPLIT.take(["a"]), TypeError, r"indices must be integers, not \["),
        (lambda: SPLIT.take([1.5]), TypeError, r"indices must be integers, not \["),
        (lambda: SPLIT.take([True, False]), TypeError, "indices must be integers.*flatnonzero"),
        (lambda: SPLIT.take([[0], [0, 1]]), TypeError, "indices must be integers"),
        (lambda: SPLIT.take(None), TypeError, "indices must be integers, not None"),
        (lambda: SPLIT.take([]), ValueError, "indices is empty"),
        (lambda: SPLIT.take([[0, 1]]), ValueError, r"shape \(chosen,\), not \(1, 2\)"),
        (lambda: SPLIT.take(0), ValueError, r"shape \(chosen,\), not \(\)"),
        (lambda: SPLIT.class_counts(1), ValueError, "classes=1, but the targets go up to 1"),
        (lambda: SPLIT.class_counts(None), ValueError, "classes=None; it must be a Python integer"),
        (lambda: dataset(train=None), TypeError, "Dataset: train=None is not a Split"),
        (lambda: dataset(validation=5), TypeError, "Dataset: validation=5 is not a Split"),
        (lambda: dataset(class_names=["a", "b"]), TypeError, r"class_names must be a tuple of strings, not \["),
        (lambda: dataset(channel_names="xy"), TypeError, "channel_names must be a tuple of strings, not 'xy'"),
        (lambda: dataset(task="ranking"), ValueError, "task='ranking'; choose one of 'classification', 'regression'"),
        (lambda: dataset(sample_rate=np.nan), ValueError, "sample_rate=nan; it must be positive"),
        (lambda: dataset(sample_rate=-1), ValueError, "sample_rate=-1.0; it must be positive"),
        (lambda: DATASET.with_validation(None), ValueError, "fraction=None is not a real number"),
        (lambda: DATASET.with_validation(np.nan), ValueError, "fraction=nan; it must be between 0 and 1"),
        (lambda: DATASET.with_validation(1.0), ValueError, "fraction=1.0; it must be between 0 and 1"),
        (
            lambda: DATASET.with_validation(0.2, seed=-1),
            ValueError,
            "seed=-1; it must be a Python integer of at least 0",
        ),
        (lambda: DATASET.with_validation(0.2, seed=None), ValueError, "seed=None; it must be a Python integer"),
        (lambda: DATASET.standardised(targets="yes"), TypeError, "targets='yes' must be True or False"),
        (lambda: dataset_from_cases("x", None, None), TypeError, "train=None is not a Cases"),
        (lambda: dataset_from_cases("x", Cases((), (), None, ()), 5), TypeError, "test=5 is not a Cases"),
        (lambda: Batches(None, 2), TypeError, "split=None is not a Split"),
        (lambda: Batches(DATASET, 2), TypeError, "split=Dataset.* is not a Split, such as `train`"),
        (lambda: Batches(SPLIT, 1.5), ValueError, "size=1.5; it must be a Python integer"),
        (lambda: Batches(SPLIT, True), ValueError, "size=True; it must be a Python integer"),
        (lambda: Batches(SPLIT, "2"), ValueError, "size='2'; it must be a Python integer"),
        (lambda: Batches(SPLIT, 2, seed=None), ValueError, "seed=None; it must be a Python integer"),
        (lambda: Batches(SPLIT, 2, shuffle=1), TypeError, "shuffle=1 must be True or False"),
        (lambda: Batches(SPLIT, 2).epoch(-1), ValueError, "epoch=-1; it must be a Python integer of at least 0"),
        (
            lambda: Batches(SPLIT, 2, shuffle=False).epoch(-1),
            ValueError,
            "epoch=-1; it must be a Python integer of at least 0",
        ),
        (lambda: Batches(SPLIT, 2).epoch(0.5), ValueError, "epoch=0.5; it must be a Python integer"),
        (lambda: Batches(SPLIT, 2).epoch(0, start=4), ValueError, "start=4; it must be a Python integer of at most 3"),
        (
            lambda: Batches(SPLIT, 2).epoch(0, start=-1),
            ValueError,
            "start=-1; it must be a Python integer of at least 0",
        ),
        (lambda: Batches(SPLIT, 2).batch(0, 1.0), ValueError, "index=1.0; it must be a Python integer"),
        (lambda: Batches(SPLIT, 2).batch(-1, 0), ValueError, "epoch=-1; it must be a Python integer of at least 0"),
        (lambda: slope_envelope(np.ones((2, 3)), 360.0), ValueError, r"\(cases, length, leads\).*not \(2, 3\)"),
        (lambda: slope_envelope(np.ones((2, 0, 1)), 360.0), ValueError, "without 0"),
        (lambda: slope_envelope(np.ones((2, 300, 2), F32), np.nan), ValueError, "sample_rate=nan; it must be finite"),
        (lambda: slope_envelope(np.ones((2, 300, 2), F32), None), ValueError, "sample_rate=None is not a real number"),
        (lambda: slope_envelope(np.ones((2, 300, 2), F32), 1e18), ValueError, "takes 80000000000000000 steps"),
        (lambda: slope_envelope(np.full((1, 300, 2), np.nan), 90.0), ValueError, "lead 0 of case 0 is nan at step 0"),
        (lambda: slope_envelope(np.array([[[1e38], [-3e38]] * 99], F32), 90.0), ValueError, "differences .* overflow"),
        (lambda: slope_envelope(np.ones((1, 300, 2)) * 1j, 90.0), TypeError, "real numbers, not complex128"),
        (lambda: slope_envelope("abc", 90.0), TypeError, "signals must hold real numbers"),
        (lambda: slope_envelope([[[1.0]], [[1.0, 2.0]]], 90.0), TypeError, "no common length"),
    ],
)
def test_one_sentence_says_it(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_numpy_integers_are_integers():
    batches = Batches(SPLIT, np.int64(2), seed=np.uint8(3))
    np.testing.assert_array_equal(
        batches.batch(np.int32(1), np.int8(2)).cases, Batches(SPLIT, 2, seed=3).batch(1, 2).cases
    )
    assert len(list(batches.epoch(0, start=3))) == 0
    assert DATASET.with_validation(np.float32(0.5), np.int64(1)).validation is not None


def test_integers_do_not_wrap_around_in_the_envelope():
    """Unsigned and short samples have the slopes that floats have."""
    signal = np.random.default_rng(0).integers(0, 200, (1, 90, 2))
    expected = slope_envelope(signal.astype(np.float64), 90.0)
    for dtype in (np.uint8, np.int16, np.float16):
        np.testing.assert_array_equal(slope_envelope(signal.astype(dtype), 90.0), expected)


def test_long_and_short_series_together():
    """Padding within bounds stays allowed: a few long series among many short ones."""
    split = Split.from_series([np.ones((1, 1))] * 99 + [np.ones((9999, 1))], np.zeros(100, I32))
    assert split.inputs.shape == (100, 9999, 1)
