"""Own files: every supported form gives the same cases, and every kind of dirt gives a clear sentence."""

import io
import wave
import zipfile

import numpy as np
import pytest

from echograd import ArgumentError, EchogradError
from echograd.workbench.data import DataError, read_cases, read_dataset

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

VALUES = np.random.default_rng(0).normal(size=(20, 6)).round(3)
NAMES = [("a", "b")[i % 2] for i in range(20)]


def wide(separator=",", header=True, point="."):
    """Return a table with one case a row."""
    rows = [["label", *(f"t{i}" for i in range(6))]] if header else []
    rows += [[name, *(f"{x:.3f}".replace(".", point) for x in row)] for name, row in zip(NAMES, VALUES, strict=True)]
    return "\n".join(map(separator.join, rows)) + "\n"


def long(time=lambda case, step: f"{step / 10:.1f}", order=None):
    """Return a table with one step a row; case i has i % 3 steps less."""
    rows = [
        f"c{i},{time(i, step)},{VALUES[i, step]:.3f},{step},{NAMES[i]},p{i // 2}"
        for i in range(20)
        for step in range(6 - i % 3)
    ]
    rows = rows if order is None else [rows[i] for i in order(len(rows))]
    return "id,time,x,count,label,patient\n" + "\n".join(rows) + "\n"


@pytest.fixture
def write(tmp_path):
    def _write(text, name="mine.csv", encoding="utf-8"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return _write


def assert_all_there(cases):
    np.testing.assert_array_equal([case[:, 0] for case in cases.series], VALUES.astype(np.float32))
    assert list(cases.labels) == NAMES


@pytest.mark.parametrize(
    ("text", "options", "note"),
    [
        (wide(), {}, "column 'label' is the label"),
        (wide(";"), {}, "6 columns are the steps"),
        (wide("\t"), {}, "6 columns are the steps"),
        (wide("|"), {}, "6 columns are the steps"),
        (wide(" "), {}, "6 columns are the steps"),
        (wide(";", point=","), {}, "Commas in numbers are read as decimal points"),
        ("sep=;\n" + wide(";"), {}, "6 columns are the steps"),
        (wide().replace("label", '"label"').replace("a,", '"a",'), {}, "column 'label'"),
        (wide().replace("label", "kind"), {"label": "Kind"}, "column 'kind'"),
        (wide().replace("\n", ",,\n"), {}, "6 columns are the steps"),
        ("# a comment\n\n" + wide(), {}, "6 columns are the steps"),
        (wide(header=False), {}, "The file has no header."),
        (wide("\t", header=False), {}, "column number 1 is the label"),
        (wide(header=False), {"label": "1"}, "column number 1 is the label"),
        (
            "\n".join(f"{i - 1 if i else ''},{line}" for i, line in enumerate(wide().splitlines())),
            {},
            "numbers the rows",
        ),
        ("\n".join(f"{i or 'id'},{line}" for i, line in enumerate(wide().splitlines())), {}, "'id' is left out"),
    ],
)
def test_one_case_a_row(write, text, options, note):
    cases = read_cases(write(text), **options)
    assert_all_there(cases)
    assert note in " ".join(cases.notes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_byte_order_mark(write, encoding):
    assert_all_there(read_cases(write(wide(), encoding=encoding)))


def test_the_label_in_the_last_column(write):
    text = "\n".join(f"{row[0]},{row[1]},{name}" for row, name in zip(VALUES, NAMES, strict=True))
    assert list(read_cases(write(text), label="last").labels) == NAMES
    with pytest.raises(DataError, match=r"line 1: column number 3 holds 'a'.*--label 3"):
        read_cases(write(text))


def test_missing_values(write):
    text = wide() + "a,1,,3,n/a,5,NaN\nb,1,2,3,,,\n"
    cases = read_cases(write(text))
    np.testing.assert_array_equal(cases.series[20][:, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(cases.series[21][:, 0], [1, 2, 3])
    assert "interpolated linearly in time: 2, in 1 of 22 cases" in " ".join(cases.notes)
    with pytest.raises(DataError, match=r"line 22: 2 missing values"):
        read_cases(write(text), missing="error")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("label,0,1\n", r"a header \(label, 0, 1\) and no rows"),
        (wide().encode("utf-16"), "UTF-16. Save it as UTF-8"),
        (wide().encode() + b"\xe9,1,2,3,4,5,6\n", "line 22: not UTF-8"),
        (wide() + "a,1,2\n", "line 22: 3 cells, but the header has 7"),
        (wide() + "a,1,2,3,4,5,6,7\n", "line 22: 8 cells"),
        (wide(header=False) + "a,1\n", "line 21: 2 cells, but line 1 has 7"),
        (wide(";", point=",") + "a;1.5;2;3;4;5;6\n", "line 22 '1.5' with a point"),
        (wide().replace("t3", "t2"), "columns 4 and 5 have the same name 't2'"),
        (wide().replace("t3", ""), "column 5 has no name"),
        (wide().replace("label", "kind"), "Is it 'kind', the only column that holds text"),
        (wide().replace("t0", "class"), "'label' and 'class' could both be the label"),
        (wide() + "a,1,x,3,4,5,6\n", "line 22: column 't1' holds 'x'"),
        (wide() + "a,1,1_5,3,4,5,6\n", "line 22: column 't1' holds '1_5'"),
        (wide() + "a,1,1e300,3,4,5,6\n", r"line 22: 1e\+300 at step 1"),
        (wide() + "a,1,inf,3,4,5,6\n", "line 22: inf at step 1"),
        (wide() + "a,,nan,?,,,\n", "line 22: all values are missing"),
        (wide() + ",1,2,3,4,5,6\n", "line 22: the case has no label"),
        (wide() + '"a,1,2,3,4,5,6\n', "Is a quotation mark missing"),
        (wide().replace("t0", "time"), "no column says which case a row belongs to"),
        ("label\na\nb\n", "no column with values besides the label"),
        ("\n".join(f"{x},{y}" for x, y in VALUES[:, :2]), "no header, and the column that would be the label"),
        ("y,0\n" + "\n".join(f"{i},{i / 7}" for i in range(40)), "40 different integers. Are they classes"),
    ],
)
def test_dirty_tables(write, text, match):
    with pytest.raises(DataError, match=match):
        read_cases(write(text))


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        (wide().replace("\nb", "\na"), {}, "all 20 cases have the label 'a'. A classifier needs two"),
        ("y,0\n" + "\n".join(f"w{i},{i}" for i in range(9)), {}, "9 different labels for 9 cases"),
        ("y,0\n" + "1.5,1\n" * 9, {}, "all targets are 1.5"),
        ("y,0\n" + "a,1\nb,1\n" * 9, {}, "all values of the training cases are equal"),
        ("y,who,0\n" + "a,p,1\nb,q,2\n" * 9, {"group": "who"}, "no test cases can be held out.*2 groups"),
    ],
)
def test_cases_that_cannot_be_learned(write, text, options, match):
    with pytest.raises(DataError, match=match):
        read_dataset(write(text), **options)


def test_one_step_a_row(write):
    data = read_dataset(write(long()), group="patient")
    cases = read_cases(write(long()), group="patient")
    assert [case.shape for case in cases.series[:3]] == [(6, 2), (5, 2), (4, 2)]
    np.testing.assert_array_equal(cases.series[4][:, 0], VALUES[4, :5].astype(np.float32))
    assert data.channel_names == ("x", "count")
    assert not set(data.train.groups) & set(data.test.groups)
    assert len(data.train) + len(data.test) == 20
    assert data.sample_rate is None
    assert "groups: p" in data.description


def test_rows_in_any_order(write):
    mixed = read_cases(write(long(order=np.random.default_rng(0).permutation)), group="patient")
    plain = read_cases(write(long()), group="patient")
    assert "are not in the order of time; they are sorted" in " ".join(mixed.notes)
    by_first = {case.tobytes() for case in mixed.series}
    assert by_first == {case.tobytes() for case in plain.series}


def test_dates_give_a_sample_rate(write):
    text = long(lambda case, step: f"2024-05-01T12:00:{step / 4:05.2f}0")
    assert read_dataset(write(text), group="patient").sample_rate == 4


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (long() + "c0,0.2,1,1,a,p0\n", "case c0: lines 4 and 103 have the same time"),
        (long() + "c0,9,1,1,b,p0\n", "column 'label' is 'a' in line 2 and 'b' in line 103"),
        (long() + "c0,9,1,1,a,p9\n", "column 'patient' is 'p0' in line 2 and 'p9' in line 103"),
        (long() + "c0,noon,1,1,a,p0\n", "line 103: the time 'noon'"),
        (long() + "c0,2024-05-01,1,1,a,p0\n", "some times are numbers, others dates"),
        (long() + ",9,1,1,a,p0\n", "line 103: the row has no 'id'"),
        (long() + "c0,9,high,1,a,p0\n", "line 103: column 'x' holds 'high'"),
    ],
)
def test_dirty_steps(write, text, match):
    with pytest.raises(DataError, match=match):
        read_cases(write(text), group="patient")


def test_irregular_steps_are_told(write):
    cases = read_cases(write(long(lambda case, step: f"{step**2}")), group="patient")
    assert "20 cases have irregular intervals" in " ".join(cases.notes)
    assert "(" in cases.notes[-1]
    assert "1 to 9" in cases.notes[-1]


def test_names_of_columns(write):
    text = long().replace("id,time", "subject,seconds")
    cases = read_cases(write(text), id="subject", time="seconds", group="patient")
    assert len(cases.series) == 20
    with pytest.raises(DataError, match=r"no column 'subjekt' \(--id\). Did you mean 'subject'"):
        read_cases(write(text), id="subjekt")
    with pytest.raises(ArgumentError, match="label='' is not the name of a column"):
        read_cases(write(text), label="")
    with pytest.raises(ArgumentError, match="task='guess'"):
        read_cases(write(text), task="guess")


def test_tasks(write):
    real = read_dataset(write("y,0,1\n" + "\n".join(f"{i / 3:.2f},{i},1" for i in range(12))))
    assert (real.task, real.train.targets.shape[1:]) == ("regression", (1,))
    whole = "y,0\n" + "\n".join(f"{i},{i / 7}" for i in range(40))
    assert read_dataset(write(whole), task="regression").task == "regression"
    assert read_dataset(write("y,0\n" + "1.0,3\n2,4\n" * 5)).class_names == ("1", "2")


def test_a_single_case_of_a_class_is_told(write):
    data = read_dataset(write(wide() + "c,1,2,3,4,5,6\n"))
    assert "Warning: of class c there is a single case" in data.description
    assert 2 in data.train.targets


def test_the_share_of_test_cases(write):
    path = write(wide())
    half, other = (read_dataset(path, test_fraction=0.5, seed=seed) for seed in (0, 1))
    assert np.bincount(half.test.targets).tolist() == [5, 5]
    assert not np.array_equal(half.test.inputs, other.test.inputs)
    assert half.origin["test_fraction"] == 0.5
    again = read_dataset(**half.origin)
    np.testing.assert_array_equal(again.test.inputs, half.test.inputs)


def test_a_test_file(write):
    data = read_dataset(write(wide()), test=write(wide(), "other.csv"))
    assert (len(data.train), len(data.test)) == (20, 20)
    with pytest.raises(DataError, match=r"classes .*'q'"):
        read_dataset(write(wide()), test=write(wide().replace("\nb", "\nq"), "other.csv"))
    swapped = long().replace("x,count", "count,x")
    with pytest.raises(DataError, match=r"have the channels x, count, the test cases count, x"):
        read_dataset(write(long()), test=write(swapped, "other.csv"), group="patient")


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


X = VALUES.reshape(20, 2, 3)
Y = np.array(NAMES)


def test_arrays(write):
    path = write(archive(X=X, y=Y, lengths=np.full(20, 2), groups=np.arange(20) // 2), "mine.npz")
    cases = read_cases(path)
    np.testing.assert_array_equal(cases.series[3], X[3, :, :2].T.astype(np.float32))
    assert (list(cases.labels), cases.groups[:3]) == (NAMES, ("0", "0", "1"))
    assert "X is taken as 20 cases × 2 channels × 3 steps" in " ".join(cases.notes)
    turned = read_cases(write(archive(X=np.asfortranarray(X.transpose(0, 2, 1)), y=Y), "mine.npz"))
    np.testing.assert_array_equal(turned.series[3], X[3].astype(np.float32))
    assert "save X.transpose(0, 2, 1)" in " ".join(turned.notes)
    both = read_dataset(write(archive(X_train=X, y_train=Y, X_test=X[:4], y_test=Y[:4]), "mine.npz"))
    assert (len(both.train), len(both.test)) == (20, 4)
    assert read_cases(write(archive(X=VALUES), "mine.npz"), labelled=False).labels is None


def lying():
    """An archive whose array claims more values than it has."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 2, 3)})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as names:
        names.writestr("X.npy", file.getvalue() + bytes(48))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"hello", "not a .npz file"),
        (archive(X=X, y=Y)[:200], "not a .npz file"),
        (archive(X=X, y=Y).replace(X.tobytes()[:8], b"\0" * 8), "Bad CRC-32"),
        (lying(), "takes 48000000000000 bytes, but it has"),
        (archive(data=X), "no array 'X', but data"),
        (archive(X=X), "no array 'y'"),
        (archive(X=X, y=Y[:4]), r"shape \(4,\); it must have shape \(20,\)"),
        (archive(X=X.astype(complex), y=Y), "complex128"),
        (archive(X=X[0, 0], y=Y), "must be real numbers of shape"),
        (archive(X=X, y=Y, lengths=np.full(20, 9)), "case 0: its length is 9, but there are 3 steps"),
        (archive(X=np.array([X[0], None], dtype=object), y=Y[:2]), "Python objects.*lengths"),
    ],
)
def test_damaged_arrays(write, content, match):
    with pytest.raises(DataError, match=match):
        read_cases(write(content, "mine.npz"))


def sound(frames, width=2):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(width)
        out.setframerate(8000)
        out.writeframes(frames)
    return file.getvalue()


def test_a_folder_for_every_class(write, tmp_path):
    for i, (name, row) in enumerate(zip(NAMES, VALUES, strict=True)):
        write("x,z\n" + "\n".join(f"{value},{i}" for value in row), f"mine/{name}/{i:02}.csv")
    write("ignored", "mine/a/.hidden")
    write("told", "mine/a/notes.md")
    data = read_dataset(tmp_path / "mine")
    assert (data.channel_names, data.class_names, len(data.train)) == (("x", "z"), ("a", "b"), 16)
    assert "1 other files are left out, such as notes.md" in data.description
    write("x,y\n1,2\n", "mine/b/99.csv")
    with pytest.raises(DataError, match=r"99.csv has the columns x, y, but the files before it"):
        read_dataset(tmp_path / "mine")


@pytest.mark.parametrize(("width", "scale"), [(1, 2**7), (2, 2**15), (3, 2**23), (4, 2**31)])
def test_sounds(write, tmp_path, width, scale):
    numbers = [-1, 0, 5, 100]
    content = b"".join((n + 128 if width == 1 else n).to_bytes(width, "little", signed=width > 1) for n in numbers)
    for name in ("a/1", "a/2", "b/1", "b/2"):
        write(sound(content, width), f"mine/{name}.wav")
    cases = read_cases(tmp_path / "mine")
    np.testing.assert_array_equal(cases.series[0][:, 0], np.array(numbers, np.float32) / scale)
    assert cases.sample_rate == 8000
    write(sound(content, width)[:-1], "mine/a/1.wav")
    with pytest.raises(DataError, match=r"1\.wav"):
        read_cases(tmp_path / "mine")


@pytest.mark.parametrize("names", [("train.csv", "test.csv"), ("Toy_TRAIN.csv", "Toy_TEST.csv")])
def test_a_folder_with_training_and_test_files(write, tmp_path, names):
    for name in names:
        write(wide(), f"mine/{name}")
    data = read_dataset(tmp_path / "mine")
    assert (data.name, len(data.train), len(data.test)) == ("mine", 20, 20)


def test_arrays_in_folders_for_training_and_test(tmp_path):
    for side in ("train", "test"):
        for i, name in enumerate(NAMES):
            place = tmp_path / "mine" / side / name
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f"{i}.npy", X[i])
    data = read_dataset(tmp_path / "mine")
    assert (len(data.train), len(data.test), data.inputs_dim, data.length) == (20, 20, 2, 3)


def test_files_of_the_archives(write):
    text = "@problemName Toy\n@univariate true\n@classLabel true 1 2\n@data\n" + "0.5,1.5:1\n2.5,3.5:2\n" * 5
    data = read_dataset(write(text, "Toy_TRAIN.ts"), test=write(text, "Toy_TEST.ts"))
    assert (data.name, data.class_names, len(data.test)) == ("Toy", ("1", "2"), 10)
    with pytest.raises(DataError, match="Leave --label out"):
        read_cases(write(text, "Toy.ts"), label="x")
    with pytest.raises(DataError, match="declares classification, not regression"):
        read_cases(write(text, "Toy.ts"), task="regression")


def test_no_such_file(tmp_path, write):
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_dataset(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_dataset(tmp_path / "none")
    with pytest.raises(DataError, match=r"files of this kind cannot be read. Supported endings: .csv"):
        read_dataset(write("x", "mine.xlsx"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="one sub-folder for each class"):
        read_dataset(tmp_path / "empty")
    with pytest.raises(EchogradError):
        read_dataset(3)
