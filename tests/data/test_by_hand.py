"""Published files that users put into the data folder: spoken digits, heart rates, EEG, transformer temperatures."""

import contextlib
import io
import re
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from echograd import ArgumentError
from echograd.workbench.data import (
    DataError,
    available,
    load,
    log_mel,
    read_bonn_eeg,
    read_ett,
    read_ett_series,
    read_fsdd,
    read_troika,
    windows,
)
from echograd.workbench.data._beats import DS1, DS2
from echograd.workbench.data._mat import read_mat

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]


def write_digits(folder):
    """Two digits of two speakers with seven recordings each, of different lengths."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for digit in (0, 7):
        for speaker in ("ann", "bob"):
            for index in range(7):
                with wave.open(str(folder / f"{digit}_{speaker}_{index}.wav"), "wb") as file:
                    file.setparams((1, 2, 8000, 0, "NONE", ""))
                    file.writeframes(rng.integers(-3000, 3000, 300 + 10 * index + digit).astype("<i2").tobytes())


def test_spoken_digits(tmp_path):
    write_digits(tmp_path / "fsdd/recordings")
    published = load("fsdd", root=tmp_path)
    assert (len(published.train), len(published.test), published.inputs_dim) == (8, 20, 32)
    assert set(published.test.groups) == {"ann", "bob"}
    held = load("fsdd-waveform-bob", root=tmp_path)
    assert set(held.train.groups) == {"ann"}
    assert set(held.test.groups) == {"bob"}
    assert held.name == "fsdd-waveform-bob"
    patches = read_fsdd(tmp_path / "fsdd/recordings", view="patches", speaker="bob")
    assert np.array_equal(patches.test.inputs.reshape(14, -1)[:, : held.length], held.test.inputs[:, :, 0])
    assert held.test.lengths.max() == 367
    assert abs(held.test.inputs).max() < 1
    with pytest.raises(ArgumentError, match="none of ann, bob"):
        load("fsdd-theo", root=tmp_path)


def test_a_tone_is_in_its_mel_band():
    bands = log_mel(np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000))
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 34) / 2595) - 1)
    assert bands.shape == (47, 32)
    assert (bands.argmax(1) == np.abs(edges[1:-1] - 1000).argmin()).all()
    assert log_mel(np.zeros(3)).shape == (1, 32)


def write_recordings(folder, compressed=True):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, windows_ in (("01_TYPE01", 3), ("04_TYPE01", 4), ("04_TYPE02", 2)):
        signal = rng.integers(-500, 500, (6, 1000 + 250 * (windows_ - 1) + 7)).astype(float)
        scipy.io.savemat(folder / f"DATA_{name}.mat", {"sig": signal}, do_compression=compressed)
        scipy.io.savemat(folder / f"REF_{name}.mat", {"BPM0": rng.uniform(60, 180, (windows_, 1))})


def test_heart_rates(tmp_path):
    write_recordings(tmp_path / "troika")
    dataset = load("troika-04", root=tmp_path)
    assert (len(dataset.train), len(dataset.test), dataset.length, dataset.inputs_dim) == (3, 6, 200, 5)
    assert set(dataset.test.groups) == {"04_TYPE01", "04_TYPE02"}
    signal = scipy.io.loadmat(tmp_path / "troika/DATA_01_TYPE01.mat")["sig"]
    rates = scipy.io.loadmat(tmp_path / "troika/REF_01_TYPE01.mat")["BPM0"]
    full = read_troika(tmp_path / "troika", test="04", sample_rate=125)
    assert np.array_equal(full.train.inputs[2], signal[1:, 500:1500].T)
    assert np.allclose(full.train.targets, rates)
    assert np.allclose(dataset.train.inputs[2, 1], signal[1:, 505:510].mean(1))
    scipy.io.savemat(tmp_path / "troika/REF_01_TYPE01.mat", {"BPM0": rates[:-1]})
    with pytest.raises(DataError, match=r"make 3 windows, but REF_01_TYPE01\.mat has 2"):
        load("troika", root=tmp_path)


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_files(tmp_path, compressed):
    file = tmp_path / "a.mat"
    values = {"a": np.arange(6.0).reshape(2, 3), "i": np.array([[1, -300]], np.int16), "s": "text", "z": np.array([1j])}
    scipy.io.savemat(file, values, do_compression=compressed)
    found = read_mat(file)
    assert set(found) == {"a", "i"}
    assert np.array_equal(found["a"], values["a"])
    assert found["i"].tolist() == [[1, -300]]
    content = file.read_bytes()
    for end in range(130, len(content) - 8, 7):
        file.write_bytes(content[:end])
        with contextlib.suppress(DataError):  # if the cut is between two variables, the first ones are readable
            assert len(read_mat(file)) < len(values)
    rng = np.random.default_rng(0)
    for _ in range(200):  # damage gives a message, or numbers of a sound format, but no other error
        damaged = bytearray(content)
        damaged[rng.integers(126, len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        with contextlib.suppress(DataError):
            read_mat(file)


def test_eeg_segments(tmp_path):
    rng = np.random.default_rng(0)
    cases = {
        f"{c}/{c}{n:03d}.{'TXT' if c == 'N' else 'txt'}": rng.integers(-99, 99) for c in "ZONFS" for n in range(1, 101)
    }

    def write(skip=None, length=4097):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in cases.items():
                if name != skip:
                    archive.writestr(name, f"{value}\r\n" * length)
        (tmp_path / "bonn-eeg/bonn.zip").write_bytes(buffer.getvalue())

    (tmp_path / "bonn-eeg").mkdir()
    write()
    folds = [read_bonn_eeg(tmp_path / "bonn-eeg/bonn.zip", fold=fold) for fold in (0, 9)]
    assert all((fold.test.class_counts(5) == 10).all() and (fold.train.class_counts(5) == 90).all() for fold in folds)
    first = load("bonn-eeg-9", root=tmp_path).test
    assert np.array_equal(first.inputs, folds[1].test.inputs)
    assert first.length == 4097
    values = np.array(list(cases.values())).reshape(5, 100)
    assert all(np.isin(first.inputs[first.targets == c, 0, 0], values[c]).all() for c in range(5))
    write(skip="S/S100.txt")
    with pytest.raises(DataError, match="lacks 1 of 500 segments, such as S100"):
        load("bonn-eeg", root=tmp_path)
    write(length=4096)
    with pytest.raises(DataError, match="Z001 has 4096 values"):
        load("bonn-eeg", root=tmp_path)


def pack_212(values):
    a, b = (values.reshape(-1, 2).T & 0xFFF).astype(np.uint16)
    return np.stack([a & 255, (a >> 8) | (b >> 8) << 4, b & 255], 1).astype(np.uint8).tobytes()


def write_beats(folder, record, beats, codes, leads=("MLII", "V1")):
    """A record of 8 s whose leads are ramps."""
    steps = np.arange(8 * 360)
    values = np.stack([steps // 4, -(steps // 8)], 1)
    header = [f"{record} 2 360 {len(steps)}"]
    header += [
        f"{record}.dat 212 200 12 0 {column[0]} {(column.sum() + 2**15) % 2**16 - 2**15} 0 {lead}"
        for column, lead in zip(values.T, leads, strict=True)
    ]
    (folder / f"{record}.hea").write_text("\n".join([*header, ""]))
    (folder / f"{record}.dat").write_bytes(pack_212(values.reshape(-1)))
    words = [code << 10 | gap for code, gap in zip(codes, np.diff(beats, prepend=0), strict=True)]
    (folder / f"{record}.atr").write_bytes(np.array([*words, 0], "<u2").tobytes())


def test_heart_beats(tmp_path):
    folder = tmp_path / "mit-bih"
    folder.mkdir()
    beats, codes = np.array([100, 600, 1100, 1400, 2100, 2500]), (1, 1, 8, 5, 6, 13)
    for record in (*DS1, *DS2):
        write_beats(folder, record, beats, codes, ("V5", "MLII") if record == 114 else ("MLII", "V1"))
    dataset = load("mit-bih-beats", root=tmp_path)
    # The first beat is too near to the start, and the last one is of no class.
    assert dataset.train.class_counts(4).tolist() == [22, 22, 22, 22]
    assert dataset.train.inputs.shape == (88, 203, 4)
    assert dataset.train.groups.tolist() == np.repeat(DS1, 4).tolist()
    case = dataset.train.inputs[1]  # the beat at sample 1100, step 275
    # A step of the first lead is one unit of the file; both leads are scaled by their deviations, whose ratio is 2.
    np.testing.assert_allclose(np.diff(case[:, 0]), np.diff(case[:, 0])[0], rtol=1e-4)
    np.testing.assert_allclose(np.diff(case[:, 0]), -np.diff(case[:, 1], n=1).reshape(-1), atol=0.01)
    swapped = dataset.train.inputs[4 * DS1.index(114) + 1]
    np.testing.assert_allclose(swapped[:, :2], case[:, [1, 0]], rtol=1e-5)
    around = np.mean(np.diff(beats))
    np.testing.assert_allclose(case[:, 2:], np.log([[500 / around, 300 / around]] * 203), rtol=1e-5)
    write_beats(folder, 100, beats, codes, ("V2", "V5"))
    with pytest.raises(DataError, match="V2, V5 at 360 Hz"):
        load("mit-bih-beats", root=tmp_path)
    (folder / "100.atr").unlink()
    with pytest.raises(FileNotFoundError, match=r"100\.hea, 100\.dat"):
        load("mit-bih-beats", root=tmp_path)


def write_ett(file, rows=14_402):
    hours = np.arange(rows)
    values = np.sin(2 * np.pi * hours[:, None] / 24 + np.arange(7)) + hours[:, None] / 1e4
    lines = [",".join(["2016-07-01 00:00:00", *(f"{x:.7f}" for x in row)]) for row in values]
    file.write_text("\n".join(["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", *lines]))
    return values.T


def test_transformer_temperatures(tmp_path):
    (tmp_path / "ett").mkdir()
    file = tmp_path / "ett/ETTh1.csv"
    values = write_ett(file)
    series = read_ett_series(file)
    assert np.allclose(series.values * series.std[:, None] + series.mean[:, None], values, atol=1e-6)
    assert np.allclose(series.mean, values[:, :8640].mean(1))
    past, future = windows(series.part("test", look_back=48), 48, 12)
    assert len(past) == 2880 - 12 + 1
    assert np.array_equal(future[0], series.values[:, 11_520:11_532])
    assert np.shares_memory(past, series.values)
    assert np.array_equal(past[5], series.values[:, 11_477:11_525])
    assert series.part("train").shape == (7, 8640)
    dataset = read_ett(file, horizon=12, look_back=48, stride=100)
    assert (len(dataset.train), len(dataset.test)) == (86, 2869)
    assert dataset.train.targets.shape == (86, 1, 84)
    assert np.array_equal(dataset.test.targets[0, 0, :12], series.values[0, 11_520:11_532])
    write_ett(file, 14_399)
    with pytest.raises(DataError, match="14399 hours"):
        load("etth1-96", root=tmp_path)


def test_the_page_on_forecasting(tmp_path, monkeypatch):
    """Its first block runs on a file of the same form; the second one trains for minutes on the published file."""
    (tmp_path / "ETT").mkdir()
    write_ett(tmp_path / "ETT/ETTh1.csv")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "forecasting.md").read_text(encoding="utf-8")
    names = {}
    exec(compile(re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)[0], "forecasting.md", "exec"), names)
    # Sines of a day and a slow trend: the linear map continues them.
    assert names["linear"].evaluate(names["series"].part("test", look_back=336))["mse"] < 1e-3


def test_missing_files_are_named(tmp_path):
    states = {entry.name: entry.state for entry in available(tmp_path)}
    for name in ("fsdd", "mit-bih-beats", "troika", "bonn-eeg", "etth1", "etth2"):
        assert states[name] == "missing"
        with pytest.raises(FileNotFoundError, match=r"not downloaded\. Put"):
            load(name, root=tmp_path)
