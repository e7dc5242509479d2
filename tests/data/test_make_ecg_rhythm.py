import hashlib
import importlib.util
import pathlib

import numpy as np
import pytest
from test_wfdb import annotation, note, pack_212

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "make_ecg_rhythm.py"
LENGTH = 32_400  # 90 s at 360 Hz


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("make_ecg_rhythm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SPLIT", {"train": "201 202", "validation": "104", "test": "105"})
    monkeypatch.setattr(module, "CAPS", (5, 4, 60, 60))
    return module


def write_record(folder, name, leads=("MLII", "V1"), rhythms=((0, "(N"), (17_001, "(AFIB")), tones=(3.0, 80.0)):
    """Write a record whose first signal is a slow tone and whose second is a fast one, of 1 mV each."""
    t = np.arange(LENGTH) / 360
    digital = np.round(200 * np.stack([np.sin(2 * np.pi * f * t) for f in tones], axis=1)).astype(int) + 1024
    (folder / f"{name}.dat").write_bytes(pack_212(digital.reshape(-1)))
    lines = [f"{name} 2 360 {LENGTH}"]
    for i, lead in enumerate(leads):
        total = (int(digital[:, i].sum()) + 32768) % 65536 - 32768
        lines.append(f"{name}.dat 212 200 11 1024 {digital[0, i]} {total} 0 {lead}")
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    data, before = b"", 0
    for sample, text in rhythms:
        for _ in range((sample - before) // 1000):
            data += annotation(1, 1000)
        data += annotation(28, (sample - before) % 1000) + note(text)
        before = sample
    (folder / f"{name}.atr").write_bytes(data + annotation(0, 0))


@pytest.fixture
def mitdb(tmp_path):
    folder = tmp_path / "mitdb"
    folder.mkdir()
    write_record(folder, "201")
    write_record(folder, "202")
    write_record(folder, "104", leads=("V5", "V2"))
    write_record(folder, "105", leads=("V5", "MLII"), tones=(80.0, 3.0))
    return folder


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["make_ecg_rhythm.py", *map(str, arguments)])
    script.main()


def test_the_same_records_give_the_same_bytes(script, mitdb, tmp_path, monkeypatch):
    outputs = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for output in outputs:
        run(script, monkeypatch, mitdb, "--output", output)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert outputs[0].stat().st_size > 1000


def test_windows_lie_inside_their_rhythm_and_patients_on_one_side(script, mitdb):
    arrays = script.make(mitdb)
    bounds = {0: (0, 17_001), 1: (17_001, LENGTH)}
    for label, start in zip(arrays["labels"], arrays["starts"], strict=True):
        low, high = bounds[int(label)]
        assert low <= start
        assert start + 3600 <= high
    # 47 s of N hold four windows, 42 s of AFIB four; the caps are 5 and 4 for both records of the patient.
    for side, expected in ((0, [5, 4]), (1, [4, 4]), (2, [4, 4])):
        assert np.bincount(arrays["labels"][arrays["split"] == side]).tolist() == expected
    assert set(arrays["patients"][arrays["split"] == 0]) == {201}
    assert set(arrays["records"][arrays["split"] == 0]) == {201, 202}


def test_mlii_comes_first_and_a_fast_tone_is_gone_rather_than_folded(script, mitdb):
    arrays = script.make(mitdb)
    signals = np.cumsum(arrays["differences"], axis=1, dtype=np.int64) * float(arrays["resolution"])
    inner = signals[(arrays["starts"] > 3600) & (arrays["starts"] < LENGTH - 7200)]
    assert len(inner) >= 9
    t = np.arange(900) / 90
    np.testing.assert_allclose(inner[..., 0].std(axis=1), 1 / np.sqrt(2), rtol=0.02)
    # 80 Hz sampled at 90 Hz without a filter would be a tone of 10 Hz as strong as it was.
    assert np.abs(inner[..., 1]).max() < 0.015
    window = inner[0, :, 0]
    start = arrays["starts"][(arrays["starts"] > 3600) & (arrays["starts"] < LENGTH - 7200)][0] / 360
    # Zero phase: the slow tone is where it was.
    np.testing.assert_allclose(window, np.sin(2 * np.pi * 3.0 * (t + start)), atol=0.03)


def test_missing_records_are_named(script, mitdb, tmp_path, monkeypatch):
    (mitdb / "104.atr").unlink()
    with pytest.raises(SystemExit, match=r"1 of 12 files are missing .*104\.atr.*physionet\.org"):
        run(script, monkeypatch, mitdb, "--output", tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_files_are_checked_against_the_published_sums(script, mitdb):
    def digest(name, change=lambda data: data):
        return f"{hashlib.sha256(change((mitdb / name).read_bytes())).hexdigest()} {name}\n"

    files = sorted(path.name for path in mitdb.iterdir())
    sums = mitdb / "SHA256SUMS.txt"
    sums.write_text("".join(digest(name) for name in files))
    script.check_files(mitdb)
    # Headers are published with other line ends than a download may have.
    sums.write_text(
        "".join(digest(name, lambda d: d.replace(b"\n", b"\r\n")) if ".hea" in name else digest(name) for name in files)
    )
    script.check_files(mitdb)
    data = bytearray((mitdb / "105.dat").read_bytes())
    data[1000] ^= 1
    (mitdb / "105.dat").write_bytes(data)
    with pytest.raises(ValueError, match=r"105\.dat does not match"):
        script.check_files(mitdb)
