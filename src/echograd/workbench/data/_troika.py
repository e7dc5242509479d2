"""Reader of TROIKA: heart rate from a wrist sensor during sports."""

import pathlib
import re

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal import _checks
from echograd._internal._checks import shown

from .._paths import as_path
from ._dataset import Dataset
from ._errors import DataError
from ._mat import read_mat
from ._split import Split

NAME = "troika"
_RATE, _WINDOW, _HOP = 125, 1000, 250  # Hz; 8 s; 2 s
_CHANNELS = ("PPG 1", "PPG 2", "acceleration x", "acceleration y", "acceleration z")
_FILE = re.compile(r"DATA_(\d\d_TYPE\d\d)\.mat")


def find_recordings(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return the files of signals by recording, such as ``"04_TYPE01"``, if the file of labels is there too."""
    found = {}
    for file in sorted(folder.glob("DATA_*.mat")):
        name = _FILE.fullmatch(file.name)
        if name and file.with_name(f"REF_{name[1]}.mat").is_file():
            found[name[1]] = file
    return found


def read_troika(folder: str | pathlib.Path, *, test: str = "01", sample_rate: int = 25) -> Dataset:
    """Read TROIKA, the training data of the IEEE Signal Processing Cup 2015.

    A case is a window of 8 s; windows step by 2 s. Inputs are two PPG signals of the wrist and its acceleration. The
    target is the heart rate of the window in beats per minute. The ECG in the files is never an input, because the
    targets were computed from it.

    There is no published split. Leave one subject out: all recordings of the subject `test` are the test cases, the
    others are the training cases. Repeat it with every subject and average. Recordings are groups, so
    `Dataset.with_validation` draws whole recordings.

    Args:
        folder: the folder of ``DATA_01_TYPE01.mat``, ``REF_01_TYPE01.mat`` and so on.
        test: number of the test subject, such as ``"04"``.
        sample_rate: 125, 25 or another divisor of 125 in Hz, so that a window has a whole number of steps. Signals are
            averaged over as many samples as a step spans.

    Returns:
        The data set, without a validation split. Signals are not scaled; `Dataset.standardised` does that.

    Raises:
        FileNotFoundError: the folder holds no recordings.
        ArgumentTypeError: an argument has the wrong type.
        ArgumentError: there is no such subject, or no other one; `sample_rate` is no divisor of 125.
        DataError: a file is damaged or has other contents.

    Source: Z. Zhang, Z. Pi, B. Liu, IEEE Transactions on Biomedical Engineering 62 (2015), 522.

    Example:
        ```python
        dataset = read_troika("TROIKA", test="04").standardised(targets=True)
        ```
    """
    folder = as_path("read_troika", "folder", folder)
    if not isinstance(test, str):
        raise ArgumentTypeError(f"read_troika: test={shown(test)} must be the number of a subject, such as '04'.")
    rate = _checks.integer("read_troika", "sample_rate", sample_rate, 1, _RATE)
    if _RATE % rate:
        raise ArgumentError(f"read_troika: sample_rate={rate} is no divisor of {_RATE} Hz. Pass 125 or 25.")
    files = find_recordings(folder)
    if not files:
        raise FileNotFoundError(f"{folder} holds no recordings DATA_01_TYPE01.mat with REF_01_TYPE01.mat.")
    subjects = sorted({name[:2] for name in files})
    if test not in subjects or len(subjects) < 2:
        raise ArgumentError(
            f"read_troika: test={test!r} must be one of the subjects {', '.join(subjects)}, of two or more."
        )
    sides: dict[str, list] = {"train": [], "test": []}
    for name, file in files.items():
        sides["test" if name[:2] == test else "train"].append((name, *_read(file, _RATE // rate)))

    def split(side: str) -> Split:
        names, inputs, targets = zip(*sides[side], strict=True)
        stacked = np.concatenate(inputs)
        groups = np.repeat(names, [len(part) for part in inputs])
        return Split(stacked, np.concatenate(targets), np.full(len(stacked), stacked.shape[1], np.int32), groups)

    return Dataset(
        name=f"{NAME}-{test}",
        train=split("train"),
        validation=None,
        test=split("test"),
        task="regression",
        class_names=(),
        channel_names=_CHANNELS,
        sample_rate=float(rate),
        description=(
            f"Heart rate in beats per minute over windows of 8 s, stepped by 2 s, during walking and running, "
            f"at {rate} Hz. Subject {test} is the test, recordings are groups. {len(files)} recordings of subjects "
            f"{', '.join(subjects)}. There is no published split."
        ),
        source=(
            "TROIKA, IEEE Signal Processing Cup 2015. Cite Zhang, Pi and Liu, IEEE Transactions on Biomedical "
            "Engineering 62(2):522-531, 2015."
        ),
        licence="None stated with the recordings; ask their authors before redistributing them.",
    )


def _read(file: pathlib.Path, every: int) -> tuple[Float[np.ndarray, "cases steps 5"], Float[np.ndarray, "cases 1"]]:
    """Return the windows of a recording and their heart rates."""
    labels = file.with_name(file.name.replace("DATA", "REF"))
    signal, rates = read_mat(file).get("sig"), read_mat(labels).get("BPM0")
    if signal is None or signal.ndim != 2 or signal.shape[0] != 6 or rates is None:
        raise DataError(f"{file}: expected a matrix sig of 6 rows, and BPM0 in {labels.name}. Is it another file?")
    count = (signal.shape[1] - _WINDOW) // _HOP + 1
    if count != rates.size or count < 1:
        raise DataError(f"{file}: {signal.shape[1]} samples make {count} windows, but {labels.name} has {rates.size}.")
    channels = signal[1:].T  # row 0 is the ECG
    windows = np.stack([channels[i * _HOP : i * _HOP + _WINDOW] for i in range(count)])
    averaged = windows.reshape(count, _WINDOW // every, every, 5).mean(axis=2)
    if not (np.isfinite(averaged).all() and np.isfinite(rates).all()):
        raise DataError(f"{file} or {labels.name} holds values that are not finite. Leave the recording out.")
    return averaged.astype(np.float32), rates.reshape(-1, 1).astype(np.float32)
