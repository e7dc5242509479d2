"""Reader of PPG-DaLiA: heart rate from a wrist sensor."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal import _checks
from echograd._internal._checks import shown

from .._paths import as_path
from ._dataset import Dataset
from ._errors import DataError
from ._plain_pickle import PickleError, as_numbers, load
from ._reading import read_bytes
from ._split import Split

SUBJECTS = tuple(range(1, 16))
_RATE = 64  # Hz, rate of the fastest sensor and of the loaded data
_SENSORS = {"ACC": 32, "BVP": 64, "EDA": 4, "TEMP": 4}  # Hz, as published
_WIDTHS = {"ACC": 3, "BVP": 1, "EDA": 1, "TEMP": 1}  # columns
_CHANNELS = (
    "acceleration x",
    "acceleration y",
    "acceleration z",
    "blood volume pulse",
    "skin conductance",
    "skin temperature",
)
_HOP = 2 * _RATE  # a heart rate every 2 s, ...
_LABEL = 8 * _RATE  # ... which is the mean over the 8 s before
SOURCE = (
    "PPG-DaLiA, UCI Machine Learning Repository 495, https://archive.ics.uci.edu/dataset/495/ppg+dalia "
    "(doi:10.24432/C53890). Cite Reiss et al., Deep PPG, Sensors 19(14):3079, 2019."
)
LICENCE = "CC BY 4.0, as stated by the UCI repository"


def read_ppg_dalia(
    folder: str | pathlib.Path,
    *,
    subjects: Sequence[int] = SUBJECTS,
    length: int = 49_920,
    stride: int = 4_992,
    held_out: int = 3,
    seed: int = 0,
) -> Dataset:
    """Read PPG-DaLiA from its published per-subject files.

    Inputs are the wrist sensors at 64 Hz, in the units of the sensors; samples of slower sensors are repeated. Target
    k of a window is at the time (k + 1)·2 s: the mean heart rate over the 8 s before, in beats per minute. Targets of
    a window have the shape (length // 128, 1). Windows begin 6 s into a recording, where the first target is known.

    Inputs are not scaled; `Dataset.standardised` scales them by the training subjects. There is no published split, so
    subjects are drawn: `held_out` for the test, as many for validation, the others for training. Training windows
    overlap (by `stride`); validation and test windows do not, so every second counts once.

    Args:
        folder: the folder ``PPG_FieldStudy``, with ``S1/S1.pkl`` and so on.
        subjects: numbers of the subjects to read.
        length: number of steps in a window, a multiple of 128.
        stride: number of steps between the starts of two training windows, a multiple of 128.
        held_out: number of test subjects, and of validation subjects.
        seed: seed of the draw of subjects.

    Returns:
        The data set, with subjects as groups.

    Raises:
        FileNotFoundError: the file of a subject is missing.
        ArgumentTypeError: `folder` is not a path, or `subjects` is not a sequence.
        ArgumentError: a number is not an integer or out of range, or a subject is listed twice.
        DataError: a file has other contents, or a recording is shorter than a window.

    Example:
        ```python
        dataset = read_ppg_dalia("PPG_FieldStudy", length=1_280, stride=640).standardised(targets=True)
        ```
    """
    who = "read_ppg_dalia"
    folder = as_path(who, "folder", folder)
    subjects = _subjects(subjects)
    length, stride = _checks.integer(who, "length", length, _HOP), _checks.integer(who, "stride", stride, _HOP)
    held_out, seed = _checks.integer(who, "held_out", held_out), _checks.integer(who, "seed", seed, 0, 2**63 - 1)
    if length % _HOP or stride % _HOP:
        raise ArgumentError(f"{who}: length={length} and stride={stride} must be multiples of {_HOP} steps (2 s).")
    if not held_out < len(subjects) / 2:
        raise ArgumentError(
            f"{who}: held_out={held_out} of {len(subjects)} subjects for the test, and as many for validation, leave "
            "none for training."
        )
    files = {subject: folder / f"S{subject}" / f"S{subject}.pkl" for subject in subjects}
    missing = [str(file) for file in files.values() if not os.path.isfile(file)]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(files)} files of PPG-DaLiA are missing: {', '.join(missing)}.")
    drawn = np.random.default_rng(seed).permutation(np.asarray(subjects))
    sides = {
        "test": np.sort(drawn[:held_out]),
        "validation": np.sort(drawn[held_out : 2 * held_out]),
        "train": np.sort(drawn[2 * held_out :]),
    }

    def split(side: str) -> Split:
        inputs, targets, groups = [], [], []
        for subject in sides[side]:
            signal, heart_rate = _read_subject(files[int(subject)])
            # Output k of a window that starts at step s is heart rate number (s - first) / hop + k.
            first = _LABEL - _HOP
            starts = range(first, len(signal) - length + 1, stride if side == "train" else length)
            count = 0
            for start in starts:
                label = (start - first) // _HOP
                target = heart_rate[label : label + length // _HOP]
                if len(target) == length // _HOP:
                    inputs.append(signal[start : start + length])
                    targets.append(target[:, None])
                    groups.append(subject)
                    count += 1
            if count == 0:
                raise DataError(
                    f"{files[int(subject)]}: its {len(signal)} steps are too few for one window of length={length}."
                )
        stacked = np.stack(inputs)
        return Split(stacked, np.stack(targets), np.full(len(stacked), length, np.int32), np.asarray(groups))

    return Dataset(
        name="PPG-DaLiA",
        train=split("train"),
        validation=split("validation"),
        test=split("test"),
        task="regression",
        class_names=(),
        channel_names=_CHANNELS,
        sample_rate=float(_RATE),
        description=(
            "Heart rate in beats per minute, every 2 s over the 8 s before, from wrist sensors in daily "
            f"life. Windows of {length} steps at 64 Hz. Subjects drawn with seed {seed}: "
            + "; ".join(f"{side} {', '.join(map(str, numbers))}" for side, numbers in reversed(sides.items()))
            + ". (There is no published split; the RHEL paper cut every subject's recording by time.)"
        ),
        source=SOURCE,
        licence=LICENCE,
    )


def _read_subject(file: pathlib.Path) -> tuple[Float[np.ndarray, "steps 6"], Float[np.ndarray, " labels"]]:
    """Read one subject: sensors at 64 Hz, and heart rates (number n is the mean from 2n s to 2n + 8 s)."""
    try:
        content: Any = load(read_bytes(file))
        wrist = _item(_item(content, "signal"), "wrist")
        sensors = {name: _column(_item(wrist, name), name, width) for name, width in _WIDTHS.items()}
        heart_rate = _column(_item(content, "label"), "label", 1)[:, 0]
    except PickleError as error:
        raise DataError(f"{file}: not the file of a subject of PPG-DaLiA, or truncated ({error}).") from error
    for name, values in {**sensors, "label": heart_rate[:, None]}.items():
        if not np.isfinite(values).all():
            row = np.argwhere(~np.isfinite(values))[0][0]
            raise DataError(f"{file}: {name} is not finite in row {row}. Leave the subject out, or repair the file.")
    seconds = min(len(values) // _SENSORS[name] for name, values in sensors.items())
    columns = [
        np.repeat(values[: seconds * _SENSORS[name]], _RATE // _SENSORS[name], axis=0)
        for name, values in sensors.items()
    ]
    return np.concatenate(columns, axis=1), heart_rate


def _subjects(numbers: Sequence[int]) -> tuple[int, ...]:
    """Return the subjects to read, without repetitions."""
    if not isinstance(numbers, Iterable):
        raise ArgumentTypeError(f"read_ppg_dalia: subjects={shown(numbers)} is not a sequence such as (1, 2, 3).")
    found = tuple(_checks.integer("read_ppg_dalia", f"subjects[{i}]", n, 0) for i, n in enumerate(numbers))
    twice = sorted({number for number in found if found.count(number) > 1})
    if twice:
        raise ArgumentError(
            f"read_ppg_dalia: subjects has {twice} more than once, so they could be in several splits. List each once."
        )
    return found


def _item(content: Any, key: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise PickleError(f"it has no key {key!r}")
    return content[key]


def _column(value: Any, name: str, width: int) -> Float[np.ndarray, "rows width"]:
    """Return a sensor as float32, shape (rows, width)."""
    values = as_numbers(value, name)
    if values.size == 0 or values.ndim not in (1, 2) or values.size != len(values) * width:
        raise PickleError(f"{name} has shape {values.shape} instead of {width} columns")
    with np.errstate(over="ignore"):  # overflow gives infinities, which _read_subject refuses
        return values.astype(np.float32).reshape(-1, width)
