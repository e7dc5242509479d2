import struct

import numpy as np
import pytest

from echograd.workbench.data import read_wfdb, read_wfdb_annotations

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]


def pack_212(values):
    """Pack integers as the format is described: two 12-bit numbers in three bytes."""
    packed = bytearray()
    values = [int(value) & 0xFFF for value in values]
    for a, b in zip(values[::2], [*values[1::2], None] if len(values) % 2 else values[1::2], strict=True):
        packed += bytes([a & 0xFF, (a >> 8) | ((b or 0) >> 8 << 4)])
        if b is not None:
            packed.append(b & 0xFF)
    return bytes(packed)


def annotation(code, interval):
    return struct.pack("<H", code << 10 | interval)


def note(text):
    data = text.encode()
    return annotation(63, len(data)) + data + b"\0" * (len(data) % 2)


@pytest.fixture
def record(tmp_path):
    def _record(digital, fmt="212", gain="200", zero=1024, sums=None, length=None):
        digital = np.asarray(digital)
        data = pack_212(digital.reshape(-1)) if fmt == "212" else digital.astype("<i2").tobytes()
        (tmp_path / "7.dat").write_bytes(data)
        sums = digital.sum(axis=0) if sums is None else sums
        lines = [f"7 {digital.shape[1]} 360 {length or len(digital)}"]
        for i, total in enumerate(sums):
            total = (int(total) + 32768) % 65536 - 32768
            lines.append(f"7.dat {fmt} {gain} 11 {zero} {digital[0, i]} {total} 0 lead {i}")
        (tmp_path / "7.hea").write_text("\r\n".join([*lines, "# 69 M", "# Aldomet"]) + "\r\n")
        return tmp_path / "7"

    return _record


@pytest.mark.parametrize("fmt", ["212", "16"])
@pytest.mark.parametrize("shape", [(500, 2), (501, 1), (8, 3)])
def test_signals_come_back(record, fmt, shape):
    digital = np.random.default_rng(0).integers(-2047, 2048, size=shape)
    read = read_wfdb(record(digital, fmt))
    np.testing.assert_allclose(read.signals, (digital - 1024) / 200, rtol=1e-12)
    assert read.sample_rate == 360.0
    assert read.channel_names == tuple(f"lead {i}" for i in range(shape[1]))
    assert read.units == ("mV",) * shape[1]
    assert read.comments == ("69 M", "Aldomet")
    assert read.name == "7"


def test_extreme_values_keep_their_sign(record):
    digital = np.array([[-2046, 2047], [-1, 0], [1, -2047]])
    np.testing.assert_array_equal(read_wfdb(record(digital, gain="1", zero=0)).signals, digital)


@pytest.mark.parametrize(("fmt", "mark"), [("212", -2048), ("16", -32768)])
def test_samples_marked_as_invalid_are_not_values(record, fmt, mark):
    read = read_wfdb(record([[mark, 3], [4, mark]], fmt, gain="1", zero=0))
    np.testing.assert_array_equal(read.signals, [[np.nan, 3], [4, np.nan]])


def test_gain_baseline_and_unit(record):
    read = read_wfdb(record([[100, 300]], gain="50(200)/uV"))
    np.testing.assert_array_equal(read.signals, [[-2.0, 2.0]])
    assert read.units == ("uV", "uV")


def test_gains_that_are_open_or_negative(record):
    """A gain of 0 is 200 per mV by WFDB's rule; a negative one turns the signal around."""
    np.testing.assert_array_equal(read_wfdb(record([[100, 300]], gain="0", zero=0)).signals, [[0.5, 1.5]])
    np.testing.assert_array_equal(read_wfdb(record([[100, 300]], gain="-50(200)/µV")).signals, [[2.0, -2.0]])
    assert read_wfdb(record([[100, 300]], gain="-50(200)/µV")).units == ("µV", "µV")


def test_a_damaged_signal_is_noticed(record):
    with pytest.raises(ValueError, match="signal 1 contradicts the checksum in the header"):
        read_wfdb(record([[1, 2], [3, 4]], sums=[4, 7]))


def test_a_signal_cut_short_is_noticed(record):
    with pytest.raises(ValueError, match="2 samples, but the header announces 900"):
        read_wfdb(record([[1, 2], [3, 4]], length=900))


def test_other_formats_are_refused(record, tmp_path):
    path = record([[1, 2], [3, 4]])
    header = tmp_path / "7.hea"
    header.write_text(header.read_text().replace(" 212 ", " 310 "))
    with pytest.raises(ValueError, match=r"\['310'\]"):
        read_wfdb(path)


def test_missing_files_are_named(record, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"8\.hea"):
        read_wfdb(tmp_path / "8")
    path = record([[1, 2]])
    (tmp_path / "7.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"7\.dat"):
        read_wfdb(path)


def test_annotations(tmp_path):
    file = tmp_path / "7.atr"
    file.write_bytes(
        annotation(28, 18) + note("(N\0")  # rhythm at 18
        + annotation(1, 59)  # normal beat at 77
        + annotation(59, 0) + struct.pack("<HH", 1, 5) + annotation(5, 0)  # 65541 further: a premature beat
        + annotation(61, 2) + annotation(62, 1)  # attributes of it, not annotations
        + annotation(28, 100) + note("(AFIB")
        + annotation(59, 0) + struct.pack("<HH", 0xFFFF, 0xFFF6) + annotation(14, 0)  # 10 back: noise
        + annotation(0, 0)
    )  # fmt: skip
    read = read_wfdb_annotations(tmp_path / "7")
    np.testing.assert_array_equal(read.samples, [18, 77, 65618, 65718, 65708])
    np.testing.assert_array_equal(read.codes, [28, 1, 5, 28, 14])
    np.testing.assert_array_equal(read.is_beat, [False, True, True, False, False])
    assert read.rhythms(70_000) == [("N", 18, 65718), ("AFIB", 65718, 70_000)]


def test_a_clock_of_the_annotations_own_is_told_and_converted(tmp_path):
    head = annotation(22, 0) + note("## time resolution: 1000") + annotation(22, 0)
    head += note("## annotation type definitions") + annotation(22, 0) + note("44 X new") + annotation(22, 0)
    head += note("## end of definitions")
    events = annotation(1, 500) + annotation(28, 2) + note("(N\0\0") + annotation(22, 499) + note("## no header")
    (tmp_path / "7.atr").write_bytes(head + events + annotation(0, 0))
    read = read_wfdb_annotations(tmp_path / "7")
    assert (read.resolution, read.samples.tolist(), read.codes.tolist()) == (1000.0, [500, 502, 1001], [1, 28, 22])
    assert read.notes == ("", "(N", "## no header")
    with pytest.raises(ValueError, match=r"count 1000 ticks per second.*at_rate\(record\.sample_rate\)"):
        read.rhythms(400)
    converted = read.at_rate(360.0)
    assert (converted.resolution, converted.samples.tolist()) == (None, [180, 181, 360])
    assert converted.rhythms(400) == [("N", 181, 400)]
    assert converted.at_rate(250) is converted
    for text in ("x", "0", "-5", "nan", "1e999"):
        (tmp_path / "7.atr").write_bytes(annotation(22, 0) + note("## time resolution: " + text) + annotation(0, 0))
        with pytest.raises(ValueError, match=r"7\.atr: time resolution"):
            read_wfdb_annotations(tmp_path / "7")


def test_names_with_a_dot(tmp_path):
    (tmp_path / "b.1.hea").write_text("b.1 1 360 3\nb.1.dat 16 200 16 0 1 6 0 X\n")
    (tmp_path / "b.1.dat").write_bytes(np.array([1, 2, 3], "<i2").tobytes())
    for name in ("b.1.atr", "b.1.qrs"):
        (tmp_path / name).write_bytes(annotation(1, 5) + annotation(0, 0))
    assert read_wfdb(tmp_path / "b.1").signals.shape == (3, 1)
    for name in ("b.1", "b.1.atr", "b.1.qrs"):
        assert read_wfdb_annotations(tmp_path / name).samples.tolist() == [5]
    with pytest.raises(FileNotFoundError, match=r"b\.2 is missing"):
        read_wfdb_annotations(tmp_path / "b.2")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (annotation(1, 5) + annotation(0, 0) + annotation(1, 5), "continues after its end mark"),
        (annotation(55, 5) + annotation(0, 0), "code 55 is undefined"),
        (note("early") + annotation(0, 0), "a note before the first annotation"),
    ],
)
def test_annotations_that_are_damaged_are_refused(tmp_path, data, complaint):
    (tmp_path / "7.atr").write_bytes(data)
    with pytest.raises(ValueError, match=complaint):
        read_wfdb_annotations(tmp_path / "7")


@pytest.mark.parametrize("data", [b"", annotation(1, 50), annotation(28, 5) + annotation(63, 8) + b"(N"])
def test_annotations_cut_short_are_noticed(tmp_path, data):
    file = tmp_path / "7.atr"
    file.write_bytes(data)
    with pytest.raises(ValueError, match="truncated"):
        read_wfdb_annotations(file)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("7 1 360 2\n7.dat 16 200\n", "4 samples, but the header announces 2"),
        ("7 1 360\n7.dat 16 200\n7.dat 16 200\n", "announces 1 signals, but 2 are described"),
        ("7 3 360\n" + "7.dat 16 200\n" * 3, "1.33333 samples, but the header announces 1"),
        ("7 5 360\n" + "7.dat 16 200\n" * 5, "0.8 samples, but the header announces 0"),
        ("7 1 360 -1\n7.dat 16 200\n", "the number of samples is '-1', which is not"),
        ("7 1 0\n7.dat 16 200\n", "sampling rate is 0 Hz"),
        ("7 1 nan\n7.dat 16 200\n", "sampling rate 'nan' is not a finite number"),
        ("7 1 360\n7.dat 16 nan\n", "signal 0: gain 'nan' is not a finite number"),
        ("7 1 360\n7.dat 16 200(x)\n", "signal 0: baseline 'x' is not a finite number"),
        ("7 1 360\n7.dat 16 2_0\n", "signal 0: gain '2_0' is not a finite number"),
        ("7 1 360\n7.dat 16 1e-320\n", "values of signal 0 overflow with gain 9.99989e-321"),
        ("7 1 360\n7.dat 16 200 16 0 0 6.5\n", "signal 0: checksum is '6.5', which is not an integer"),
        ("7 x 360\n7.dat 16\n", "the number of signals is 'x', which is not"),
        ("7 %s 360\n7.dat 16\n" % ("9" * 5000), "the number of signals is '999"),
        ("7 0 360\n", "the record has no signals"),
        ("7 1 360\n7.dat\n", "signal 0: '7.dat' does not name a file and a format"),
        ("7/2 1 360 4\n7a 2\n7b 2\n", "multi-segment records are not supported"),
        ("7 1 360\n7.dat 16x2 200\n", r"of formats \['16x2'\]"),
        ("7 1 360\n../7.dat 16 200\n", "are in '../7.dat', but a header must name a file of its own folder"),
        ("7 1 360\n/etc/passwd 16 200\n", "are in '/etc/passwd'"),
        ("7 1 360\n.. 16 200\n", r"are in '\.\.'"),
        ("7 1 360\nlink.dat 16 200\n", r"link\.dat: a link out of the folder of the header"),
    ],
)
def test_headers_that_do_not_fit_are_refused(tmp_path, header, complaint):
    (tmp_path / "7.dat").write_bytes(np.arange(4, dtype="<i2").tobytes())
    (tmp_path / "7.hea").write_text(header)
    (tmp_path / "link.dat").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match=complaint):
        read_wfdb(tmp_path / "7")


def test_a_header_may_leave_the_number_of_samples_open(tmp_path):
    (tmp_path / "7.dat").write_bytes(np.arange(4, dtype="<i2").tobytes())
    (tmp_path / "7.hea").write_text("7 2 360 0\n7.dat 16 1\n7.dat 16 1\n")
    np.testing.assert_array_equal(read_wfdb(tmp_path / "7").signals, [[0, 1], [2, 3]])


def test_annotations_outside_the_record_are_refused(tmp_path):
    file = tmp_path / "7.atr"
    back = annotation(59, 0) + struct.pack("<HH", 0xFFFF, 0xFFF6)
    file.write_bytes(back + annotation(1, 5) + annotation(0, 0))
    with pytest.raises(ValueError, match="an annotation at sample -5"):
        read_wfdb_annotations(file)
    file.write_bytes(annotation(28, 5) + note("(N") + annotation(28, 900) + note("(AFIB") + annotation(0, 0))
    with pytest.raises(ValueError, match="a rhythm begins at sample 905, but length=500"):
        read_wfdb_annotations(file).rhythms(500)
