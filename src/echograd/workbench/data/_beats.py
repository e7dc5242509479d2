"""Reader of the MIT-BIH beats between patients: training patients DS1, test patients DS2."""

import pathlib

import numpy as np

from .._paths import as_path
from ._dataset import Dataset
from ._errors import DataError
from ._split import Split
from ._wfdb import read_wfdb, read_wfdb_annotations

NAME = "mit-bih-beats"
# The records of the two sets of patients. The four records with paced beats are in neither.
DS1 = (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)
DS2 = (100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210, 212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234)
CLASSES = ("normal", "supraventricular", "ventricular", "fusion")
CHANNELS = ("MLII", "other lead", "interval before", "interval after")
# Annotation codes of the classes of the standard AAMI EC57. Its fifth class, unknown beats, has 15 beats and is left
# out.
_CODES = ((1, 2, 3, 11, 34), (4, 7, 8, 9), (5, 10), (6,))
_RATE, _EVERY = 360, 4  # samples per second, and samples that are averaged to a step
# Steps before and after the beat: 1.5 s and 0.75 s.
BEFORE, AFTER = 135, 68
_NEAR = 10  # beats on both sides whose intervals make the mean interval


def find_beats(folder: pathlib.Path) -> bool:
    """Return whether a folder holds the records."""
    return all((folder / f"{r}{end}").is_file() for r in (*DS1, *DS2) for end in (".hea", ".dat", ".atr"))


def read_mit_bih_beats(path: str | pathlib.Path) -> Dataset:
    r"""Read the beats of the MIT-BIH arrhythmia database, split between patients: DS1 for training, DS2 for the test.

    A case is one beat: 1.5 s before its annotation to 0.75 s after it, at 90 Hz. The channels are lead MLII and the
    other lead, each in units of the median deviation of its record, and two constants: the intervals to the beat before
    and to the beat after, as $\log$ of the ratio to the mean of the twenty intervals around. The classes are those of
    AAMI EC57 without unknown beats. Groups are records, so that validation patients are not training patients.

    Args:
        path: the folder with the records: ``100.hea``, ``100.dat``, ``100.atr`` and so on.

    Returns:
        The data set, without a validation split.

    Raises:
        FileNotFoundError: a record is missing.
        ArgumentTypeError: `path` is not a path.
        DataError: a record is damaged or not the published one.

    Source: G. B. Moody and R. G. Mark, IEEE Engineering in Medicine and Biology 20 (2001), 45; P. de Chazal et al.,
    IEEE Transactions on Biomedical Engineering 51 (2004), 1196 (the split).

    Example:
        ```python
        dataset = read_mit_bih_beats("mitdb").standardised()
        dataset.train.class_counts(dataset.classes)
        ```
    """
    folder = as_path("read_mit_bih_beats", "path", path)
    return Dataset(
        name=NAME,
        train=_split(folder, DS1),
        validation=None,
        test=_split(folder, DS2),
        task="classification",
        class_names=CLASSES,
        channel_names=CHANNELS,
        sample_rate=_RATE / _EVERY,
        description="Single heart beats, classes of AAMI EC57. Training patients (DS1) are not test patients (DS2).",
        source="MIT-BIH Arrhythmia Database 1.0.0, PhysioNet. Cite Moody and Mark, 2001, and Goldberger et al., 2000.",
        licence="ODC-By 1.0",
    )


def _split(folder: pathlib.Path, records: tuple[int, ...]) -> Split:
    found = [_beats(folder, record) for record in records]
    inputs, targets = (np.concatenate(columns) for columns in zip(*found, strict=True))
    groups = np.repeat(np.array(records, np.int32), [len(labels) for _, labels in found])
    return Split(inputs, targets, np.full(len(inputs), inputs.shape[1], np.int32), groups)


def _beats(folder: pathlib.Path, record: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the beats of a record, shape (beats, steps, channels), and their classes."""
    read = read_wfdb(folder / str(record))
    if read.sample_rate != _RATE or "MLII" not in read.channel_names or len(read.channel_names) != 2:
        raise DataError(
            f"{folder / str(record)}: {', '.join(read.channel_names)} at {read.sample_rate:g} Hz. The published record "
            f"has lead MLII and another one at {_RATE} Hz."
        )
    first = read.channel_names.index("MLII")
    leads = np.nan_to_num(read.signals[:, [first, 1 - first]])
    leads = leads[: len(leads) // _EVERY * _EVERY].reshape(-1, _EVERY, 2).mean(1)
    leads -= np.median(leads, 0)
    leads /= np.maximum(np.median(np.abs(leads), 0), 1e-3)
    notes = read_wfdb_annotations(folder / f"{record}.atr").at_rate(read.sample_rate)
    beats, codes = notes.samples[notes.is_beat], notes.codes[notes.is_beat]
    if len(beats) < 2 or (np.diff(beats) <= 0).any():
        raise DataError(f"{folder / str(record)}.atr: the beats are not in order of time, or fewer than two.")
    intervals = np.log(np.diff(beats))
    around = np.array([np.log(np.mean(np.diff(beats[max(i - _NEAR, 0) : i + _NEAR + 1]))) for i in range(len(beats))])
    before = np.concatenate([[0.0], intervals - around[1:]])
    after = np.concatenate([intervals - around[:-1], [0.0]])
    label = np.full(int(codes.max()) + 1, -1)
    for number, members in enumerate(_CODES):
        label[[code for code in members if code < len(label)]] = number
    at = beats // _EVERY
    chosen = np.flatnonzero((label[codes] >= 0) & (at >= BEFORE) & (at + AFTER <= len(leads)))
    window = leads[at[chosen, None] + np.arange(-BEFORE, AFTER)]
    constants = np.stack([before, after], 1)[chosen, None]
    inputs = np.concatenate([window, np.broadcast_to(constants, (*window.shape[:2], 2))], 2)
    return inputs.astype(np.float32), label[codes[chosen]].astype(np.int32)
