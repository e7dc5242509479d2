import os
import pickle

import numpy as np
import pytest

from echograd.workbench.data import load, read_ppg_dalia

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

SECONDS = 60


def make_subject(folder, subject, seconds=SECONDS, protocol=2, change=None):
    """Write a file like the published ones; every value tells its subject, sensor and time."""
    time = {rate: np.arange(seconds * rate) / rate for rate in (4, 32, 64)}
    content = {
        "rpeaks": np.arange(5),
        "signal": {
            "chest": {"ECG": np.zeros((seconds * 700, 1))},
            "wrist": {
                "ACC": np.stack([time[32], time[32] + 1000, np.full(seconds * 32, subject)], axis=1),
                "BVP": time[64][:, None],
                "EDA": time[4][:, None],
                "TEMP": time[4][:, None] + 30,
            },
        },
        # The heart rate of the 8 s from 2n on is 100 subject + n.
        "label": 100.0 * subject + np.arange((seconds - 8) // 2 + 1),
        "activity": np.zeros((seconds * 4, 1)),
        "questionnaire": {"WEIGHT": 78.0, "Gender": " m"},
        "subject": f"S{subject}",
    }
    if change:
        change(content)
    path = folder / f"S{subject}" / f"S{subject}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.fixture
def folder(tmp_path):
    for subject in range(1, 8):
        make_subject(tmp_path, subject)
    return tmp_path


def read(folder, **options):
    return read_ppg_dalia(folder, **{"subjects": range(1, 8), "length": 1280, "stride": 256, "held_out": 2, **options})


def test_shapes_and_names(folder):
    dataset = read(folder)
    assert dataset.task == "regression"
    assert (dataset.length, dataset.inputs_dim, dataset.sample_rate) == (1280, 6, 64.0)
    assert dataset.train.targets.shape == (len(dataset.train), 10, 1)
    # From 6 s on, two windows of 20 s fit side by side.
    assert len(dataset.test) == len(dataset.validation) == 4
    # In training one begins every 4 s: at 6, 10, ..., 38 s.
    assert len(dataset.train) == 3 * 9


def test_no_subject_is_on_two_sides(folder):
    dataset = read(folder)
    subjects = [set(split.groups.tolist()) for split in dataset.splits.values()]
    assert [len(side) for side in subjects] == [3, 2, 2]
    assert set.union(*subjects) == set(range(1, 8))


def test_the_seed_draws_the_subjects(folder):
    def test_subjects(seed):
        return tuple(read(folder, seed=seed).test.groups.tolist())

    assert test_subjects(0) == test_subjects(0)
    assert len({test_subjects(seed) for seed in range(6)}) > 1


def test_sensors_and_heart_rates_are_of_the_same_time(folder):
    for split in read(folder).splits.values():
        for inputs, targets, subject in zip(split.inputs, split.targets, split.groups, strict=True):
            pulse_time = inputs[:, 3]
            np.testing.assert_allclose(np.diff(pulse_time), 1 / 64, atol=1e-4)
            np.testing.assert_array_equal(inputs[:, 2], subject)
            # A slower sensor shows its latest sample, never a later one.
            for channel, offset, rate in ((0, 0, 32), (1, 1000, 32), (4, 0, 4), (5, 30, 4)):
                lag = pulse_time - (inputs[:, channel] - offset)
                assert lag.min() > -1e-3
                assert lag.max() < 1 / rate
            # Output k is the heart rate of the 8 s that end 2 (k + 1) s into the window.
            ends = pulse_time[0] + 2.0 * (np.arange(10) + 1)
            np.testing.assert_allclose(targets[:, 0], 100 * subject + (ends - 8) / 2, atol=1e-3)


def test_nothing_is_scaled_before_the_split(folder):
    dataset = read(folder)
    assert dataset.train.inputs.max() > 1000
    # Scaling knows the training subjects only: their own numbers become mean 0 and deviation 1.
    scaled = dataset.standardised(targets=True)
    np.testing.assert_allclose(scaled.train.targets.mean(), 0.0, atol=1e-4)
    assert abs(scaled.test.targets.mean()) > 0.1


def test_windows_of_the_test_do_not_overlap(folder):
    dataset = read(folder)
    for subject in np.unique(dataset.test.groups):
        starts = dataset.test.inputs[dataset.test.groups == subject, 0, 3]
        assert (np.diff(np.sort(starts)) >= 20.0).all()


def test_the_published_shape_is_the_default(tmp_path):
    for subject in (1, 2, 3):
        make_subject(tmp_path, subject, seconds=800)
    dataset = read_ppg_dalia(tmp_path, subjects=(1, 2, 3), held_out=1)
    assert dataset.train.inputs.shape[1:] == (49_920, 6)
    assert dataset.train.targets.shape[1:] == (390, 1)


def test_files_written_by_an_older_numpy(folder):
    path = folder / "S3" / "S3.pkl"
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data
    expected = read(folder)
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    dataset = read(folder)
    np.testing.assert_array_equal(dataset.train.inputs, expected.train.inputs)


class Harmful:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


def test_a_pickle_that_would_run_something_is_refused(folder, tmp_path):
    trace = tmp_path / "trace"
    for call in (
        (os.mkdir, (str(trace),)),
        (eval, (f"open({str(trace)!r}, 'w')",)),
        (getattr, ("text", "upper")),
    ):
        make_subject(folder, 4, change=lambda content, call=call: content.update(extra=Harmful(call)))
        with pytest.raises(ValueError, match="only numpy arrays"):
            read(folder)
        assert not trace.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_all_protocols_are_read_alike(folder, protocol):
    def change(content):
        wrist = content["signal"]["wrist"]
        wrist["ACC"], wrist["BVP"] = np.asfortranarray(wrist["ACC"]), wrist["BVP"].astype(">f4")
        content["label"] = list(content["label"])
        content["more"] = [None, True, -5, 2**40, 1.5, -np.inf, "µ", b"\0", (), (1,), (1, 2, 3, 4), np.float64(2), {}]
        content["empty"] = content["turned"] = np.zeros((0, 3)), np.ones((2, 3, 4)).transpose(1, 0, 2)

    expected = read(folder)
    for subject in range(1, 8):
        make_subject(folder, subject, protocol=protocol, change=change)
    for split, other in zip(read(folder).splits.values(), expected.splits.values(), strict=True):
        np.testing.assert_allclose(split.inputs, other.inputs, rtol=1e-6)
        np.testing.assert_array_equal(split.targets, other.targets)


def test_python_2_wrote_texts_as_bytes(folder):
    """Protocol 0 of Python 2, which has escaped bytes for text and data alike."""
    expected = read(folder)
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(%s)tcnumpy\ndtype\n"
    array += b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'%s'\ntb"
    path = folder / "S3" / "S3.pkl"
    content = pickle.loads(path.read_bytes())

    def packed(values):
        shape = b"".join(b"I%d\n" % size for size in values.shape)
        escaped = "".join(f"\\x{byte:02x}" for byte in values.astype("<f8").tobytes()).encode()
        return array.replace(b"(%s)", b"(" + shape) % escaped

    wrist = b"".join(b"S'%s'\n%ss" % (name.encode(), packed(v)) for name, v in content["signal"]["wrist"].items())
    text = b"(dp0\nS'signal'\n(dS'wrist'\n(d%sssS'label'\n%ss." % (wrist, packed(content["label"]))
    path.write_bytes(text)
    for split, other in zip(read(folder).splits.values(), expected.splits.values(), strict=True):
        np.testing.assert_array_equal(split.inputs, other.inputs)


def dtype(code, rest=(None, None, None, -1, -1, 0), order="<"):
    return b"cnumpy\ndtype\n" + inner((code, False, True)) + b"R" + inner((3, order, *rest)) + b"b"


def inner(value):
    """A value as the opcodes that make it."""
    return pickle.dumps(value, 2)[2:-1].replace(b"q\x00", b"").replace(b"q\x01", b"").replace(b"q\x02", b"")


def array(shape, data, of):
    state = b"(K\x01" + inner(shape) + of + b"\x89U" + bytes([len(data)]) + data + b"t"
    return b"cnumpy.core.multiarray\n_reconstruct\n)R" + state + b"b"


FLOATS = dtype("f8")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (array((1,), b"A" * 8, dtype("O8", (None, None, None, -1, -1, 63), "|")), "'O8' has fields or objects"),
        (array((1,), b"A" * 8, dtype("O8")), "'O8', which is not numeric"),
        (array((1,), b"A" * 8, dtype("f8", (None, ("a",), {}, -1, -1, 0))), "has fields or objects"),
        (array((1,), b"A" * 8, dtype("V8")), "'V8'"),
        (array((1,), b"A" * 8, dtype("f8", (None, None, None, -1, -1, 63))), "has fields or objects"),
        (array((1,), b"A" * 8, dtype("f16")), "'f16', which is not numeric"),
        (array((1,), b"A" * 8, dtype("M8")), "'M8', which is not numeric"),
        (array((1,), b"A" * 8, dtype("f8", order="O")), "no byte order"),
        (array((1,), b"A" * 8, b"N"), "no dtype"),
        (array((2,), b"A" * 8, FLOATS), r"shape \(2,\) takes 16 bytes, but has 8"),
        (array((2**31, 2**31, 2**31), b"A" * 8, FLOATS), r"takes \d+ bytes, but has 8"),
        (array((0, 2**39, 2**39, 2**39), b"", FLOATS), "the shape of an array is wrong"),
        (array((-1,), b"A" * 8, FLOATS), "not a tuple of sizes"),
        (array((1,) * 40, b"A" * 8, FLOATS), "not a tuple of sizes"),
        (b"cnumpy.core.multiarray\nscalar\n(" + dtype("O8") + b"U\x08AAAAAAAAtR", "'O8', which is not numeric"),
        (b"cnumpy.core.numeric\n_frombuffer\n(U\x08AAAAAAAA" + dtype("O8") + inner((1,)) + b"U\x01CtR", "'O8'"),
        (b"cnumpy\nndarray\n(K\x01" + dtype("O8") + b"U\x08AAAAAAAAtR", "it calls a function"),
        (b"cos\nsystem\nU\x04true\x85R", "names os.system, but only numpy arrays"),
        (b"\x8c\x02os\x8c\x06system\x93U\x04true\x85R", "names os.system, but only numpy arrays"),
        (b"(ios\nsystem\n", r"opcode b'i' is not one of plain data"),
        (b"Vname\nQ", r"opcode b'Q' is not one of plain data"),
        (b"(" * 100_000 + b"t" * 100_000, "nested more than 1000 deep"),
        (b"N0", "opcode b'0'"),
        (b"]" * 210_000, "more than 200000 opcodes"),
        (b"B\xff\xff\xff\xffA", "announces 4294967295 bytes"),
        (b"\x8e" + b"\xff" * 8, "announces 18446744073709551615 bytes"),
        (b"T\xff\xff\xff\xff", "a string has -1 bytes"),
        (b"X\x01\0\0\0\xff", "a text is damaged"),
        (b"S'\\x1'\n", "a string is damaged"),
        (b"S'\\z'\n", "a string is damaged"),
        (b"I" + b"9" * 9000 + b"\n", "a number is damaged"),
        (b"F1_0\n", "a number is damaged"),
        (b"h\x07", "recalls value 7"),
        (b"t", "a value is missing"),
        (b"(q\x01", "remembers a mark"),
        (b"}))s", "a key is neither text nor a number"),
        (b"X\xe8\x03\0\0" + b"x" * 1000 + b"q\1" + b"(c_codecs\nencode\nq\2h\1\x85R" + b"h\2h\1\x85R" * 99, "encodes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_harmful_pickles_are_refused_before_anything_is_made(folder, value, complaint):
    """No opcode makes an array of objects, or allocates more memory than the file justifies."""
    (folder / "S4" / "S4.pkl").write_bytes(b"\x80\x02}X\x05\0\0\0extra" + value + b"s.")
    with pytest.raises(ValueError, match=rf"S4\.pkl: not the file of a subject.*{complaint}"):
        read(folder)


def test_values_shared_many_times_are_not_followed(folder):
    """Lists in lists, two to the 40 in all, in a file of some hundred bytes."""
    nested = b"K\x01" + b"".join(b"q%c](h%ch%ceq%c" % (i, i, i, i) for i in range(1, 41))
    content = b"}(X\x06\0\0\0signal}X\x05\0\0\0wrist}X\x03\0\0\0ACC" + nested + b"sssu."
    (folder / "S4" / "S4.pkl").write_bytes(b"\x80\x02" + content.replace(b"ssu.", b"ssu."))
    with pytest.raises(ValueError, match=r"S4\.pkl: not the file of a subject"):
        read(folder)


@pytest.mark.parametrize("kept", [0, 1, 20, 500, -1000, -1])
def test_a_file_cut_short_is_refused(folder, kept):
    path = folder / "S5" / "S5.pkl"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"S5\.pkl: not the file of a subject of PPG-DaLiA, or truncated"):
        read(folder)


def test_a_file_of_something_else_is_refused(folder):
    make_subject(folder, 5, change=lambda content: content.pop("label"))
    with pytest.raises(ValueError, match=r"S5\.pkl: not the file of a subject"):
        read(folder)


def test_wrong_sensors_are_refused(folder):
    def change(content):
        content["signal"]["wrist"]["ACC"] = content["signal"]["wrist"]["ACC"][:, :2]

    make_subject(folder, 5, change=change)
    with pytest.raises(ValueError, match=r"ACC has shape \(1920, 2\) instead of 3 columns"):
        read(folder)


def test_missing_values_are_refused(folder):
    def change(content):
        content["signal"]["wrist"]["BVP"][2000] = np.nan

    for subject in range(1, 8):
        make_subject(folder, subject, change=change)
    with pytest.raises(ValueError, match=r"S\d\.pkl: BVP is not finite in row 2000"):
        read(folder)


def test_a_recording_that_is_too_short_is_refused(folder):
    make_subject(folder, 5, seconds=20)
    with pytest.raises(ValueError, match="too few for one window"):
        read(folder)


def test_missing_subjects_are_named(folder):
    (folder / "S6" / "S6.pkl").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 7 files .*S6\.pkl"):
        read(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1000}, "multiples of 128"),
        ({"stride": 0}, "at least 128"),
        ({"stride": 192}, "multiples of 128"),
        ({"held_out": 4}, "leave none"),
        ({"subjects": (1, 2, 3, 1)}, r"subjects has \[1\] more than once"),
        ({"seed": -1}, "seed=-1; it must be a Python integer of at least 0"),
    ],
)
def test_wrong_options_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        read(folder, **options)
    for wrong in ({"length": 1280.0}, {"stride": None}, {"held_out": True}, {"seed": None}, {"subjects": 3}):
        name = next(iter(wrong))
        with pytest.raises((TypeError, ValueError), match=rf"read_ppg_dalia: {name}="):
            read(folder, **wrong)


def test_it_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ECHOGRAD_DATA", str(tmp_path))
    for subject in range(1, 16):
        make_subject(tmp_path / "PPG_FieldStudy", subject, seconds=790)
    dataset = load("PPG-DaLiA", download=False)
    assert [len(np.unique(split.groups)) for split in dataset.splits.values()] == [9, 3, 3]
