"""Make the bundled ECG rhythm windows from the records of the MIT-BIH Arrhythmia Database.

    python scripts/make_ecg_rhythm.py PATH_TO_MITDB

PATH_TO_MITDB is a folder with the database's files (``100.hea``, ``100.dat``, ``100.atr``, ...), for
instance a download of https://physionet.org/content/mitdb/1.0.0/. If its ``SHA256SUMS.txt`` is beside
them, every file is checked against it. The same records give the same file, byte for byte.

The signals are processed in these steps:

1. The lead MLII becomes the first channel and the other one, a chest lead, the second. (Record 114 has them
   swapped; records 102 and 104 have no MLII and use V5 in its place, with V2 second.)
2. A zero-phase band-pass from 0.5 Hz (Butterworth, against baseline wander) to 40 Hz (linear-phase FIR, at
   least 60 dB down from 45 Hz, the Nyquist frequency of what follows), the band of a bedside monitor.
3. Every fourth sample is kept: 360 Hz becomes 90 Hz.
4. Every interval of one rhythm is cut into consecutive windows of 10 s. At most ``CAPS`` windows per patient
   and class are kept, spread evenly over the record.
5. Samples are rounded to 10 microvolts and stored as differences in time.

The split is by patient (records 201 and 202 are one patient), with every class in all splits. The usual split
of these records (de Chazal et al. 2004) is not used, because it has that patient in both splits and leaves two
patients with atrial fibrillation for training.
"""

import argparse
import collections
import hashlib
import pathlib
import sys

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from echograd.workbench.data import DataError, read_wfdb, read_wfdb_annotations

OUTPUT = pathlib.Path(__file__).parents[1] / "src/echograd/workbench/data/_bundled/ecg_rhythm.npz"

# Class indices of rhythms. Other rhythms have too few patients for all splits: atrial flutter has three;
# pre-excitation, second-degree block and sinus bradycardia have one each.
CLASSES = {"N": 0, "AFIB": 1, "B": 2, "T": 2, "P": 3}
CAPS = (30, 100, 100, 60)  # windows per patient and class
SPLIT = {
    "train": "101 102 106 107 109 112 114 115 116 118 122 200 201 202 203 205 207 209 220 221 230",
    "validation": "108 119 124 214 215 217 222 231",
    "test": "100 103 104 105 111 113 117 121 123 208 210 212 213 219 223 228 233 234",
}
SAME_PATIENT = {"202": "201"}
RATE, DECIMATION, SECONDS = 360, 4, 10
RESOLUTION = 0.01  # mV


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mitdb", type=pathlib.Path, help="folder with the MIT-BIH records")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="file to write (default: %(default)s)")
    options = parser.parse_args()
    try:
        check_files(options.mitdb)
        arrays = make(options.mitdb)
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    report(arrays)
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB, sha256 {digest}")


def check_files(folder: pathlib.Path) -> None:
    """Raise if a file is missing, or differs from its published checksum."""
    names = [f"{record}.{ending}" for record in all_records() for ending in ("hea", "dat", "atr")]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} files are missing in {folder}: {', '.join(missing[:6])}"
            f"{', ...' if len(missing) > 6 else ''}. Download the database from "
            "https://physionet.org/content/mitdb/1.0.0/ and pass its folder."
        )
    sums_file = folder / "SHA256SUMS.txt"
    if not sums_file.is_file():
        print(f"{sums_file} is missing: the files are not checked against published checksums", file=sys.stderr)
        return
    sums = {name: digest for digest, name in (line.split() for line in sums_file.read_text().splitlines() if line)}
    for name in names:
        data = (folder / name).read_bytes()
        # A download may have changed the line ends of text files.
        unix = data.replace(b"\r\n", b"\n")
        variants = (data, unix, unix.replace(b"\n", b"\r\n")) if name.endswith(".hea") else (data,)
        if sums.get(name) not in {hashlib.sha256(variant).hexdigest() for variant in variants}:
            raise DataError(f"{folder / name} does not match SHA256SUMS.txt. Download it again.")


def make(folder: pathlib.Path) -> dict[str, NDArray]:
    """Cut the windows of all records and pack them as arrays."""
    taps = np.arange(-144, 145)
    lowpass = np.sinc(2 * 42.5 / RATE * taps) * np.kaiser(taps.size, 5.65)  # 60 dB, 4.5 Hz of transition
    lowpass /= lowpass.sum()
    highpass = scipy.signal.butter(2, 0.5, "highpass", fs=RATE, output="sos")
    size = SECONDS * RATE
    columns: dict[str, list] = collections.defaultdict(list)
    for side, (_, patients) in enumerate(sorted_split()):
        for patient, records in patients.items():
            signals, starts = {}, collections.defaultdict(list)
            for record in records:
                raw = read_wfdb(folder / record)
                first = raw.channel_names.index("MLII") if "MLII" in raw.channel_names else 0
                signal = scipy.signal.sosfiltfilt(highpass, raw.signals[:, [first, 1 - first]], axis=0)
                signal = scipy.signal.oaconvolve(signal, lowpass[:, None], mode="same", axes=0)
                signals[record] = signal[::DECIMATION]
                for rhythm, start, end in read_wfdb_annotations(folder / record).rhythms(len(raw.signals)):
                    # Start at the first sample of the interval that decimation keeps.
                    start = -(-start // DECIMATION) * DECIMATION
                    if rhythm in CLASSES:
                        starts[CLASSES[rhythm]] += [(record, s) for s in range(start, end - size + 1, size)]
            for label in sorted(starts):
                found = starts[label]
                count = min(len(found), CAPS[label])
                for i in range(count):
                    record, start = found[(2 * i + 1) * len(found) // (2 * count)]
                    window = signals[record][start // DECIMATION : (start + size) // DECIMATION]
                    columns["samples"].append(np.round(window / RESOLUTION).astype(np.int16))
                    columns["labels"].append(label)
                    columns["records"].append(int(record))
                    columns["patients"].append(int(patient))
                    columns["starts"].append(start)
                    columns["split"].append(side)
    samples = np.stack(columns["samples"])
    return {
        "differences": np.diff(samples, axis=1, prepend=np.int16(0)),
        "resolution": np.asarray(RESOLUTION),
        "sample_rate": np.asarray(RATE / DECIMATION),
        "labels": np.asarray(columns["labels"], np.int8),
        "records": np.asarray(columns["records"], np.int16),
        "patients": np.asarray(columns["patients"], np.int16),
        "starts": np.asarray(columns["starts"], np.int32),
        "split": np.asarray(columns["split"], np.int8),
    }


def sorted_split() -> list[tuple[str, dict[str, list[str]]]]:
    """List the splits with their patients and the records of each."""
    sides = []
    for name, records in SPLIT.items():
        patients: dict[str, list[str]] = collections.defaultdict(list)
        for record in records.split():
            patients[SAME_PATIENT.get(record, record)].append(record)
        sides.append((name, patients))
    return sides


def all_records() -> list[str]:
    """List all records of the splits."""
    return sorted(record for records in SPLIT.values() for record in records.split())


def report(arrays: dict[str, NDArray]) -> None:
    """Print the number of windows by split, class and record."""
    for side, name in enumerate(SPLIT):
        for label in range(len(CAPS)):
            here = (arrays["split"] == side) & (arrays["labels"] == label)
            counts = collections.Counter(arrays["records"][here].tolist())
            rhythms = "+".join(rhythm for rhythm, index in CLASSES.items() if index == label)
            detail = " ".join(f"{record}:{count}" for record, count in sorted(counts.items()))
            print(f"{name:10s} {rhythms:5s} {here.sum():4d}  {detail}")


if __name__ == "__main__":
    main()
