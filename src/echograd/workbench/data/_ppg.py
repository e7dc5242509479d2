"""Reader of PPG-DaLiA: heart rate from a wrist sensor."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from echograd import ArgumentTypeError

from . import _checks
from ._dataset import Dataset, Split
from ._errors import DataError
from ._plain_pickle import PickleError, as_numbers, load
from ._reading import read_bytes

SUBJECTS = tuple(range(1, 16))
_RATE = 64  # Hz, of the fastest sensor and of everything after loading
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
_LABEL = 8 * _RATE  # ... each the mean over the 8 s before
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

    Inputs are the wrist sensors at 64 Hz, the slower ones held between their samples, in the units of the
    sensor. The target of output k of a window, (k + 1)·2 s into it, is the mean heart rate over the 8 s that
    end there, in beats per minute: shape (length // 128, 1). Windows begin 6 s into a recording, where the
    first of them is known.

    Nothing is scaled here; `Dataset.standardised` scales with the training subjects' numbers. There is no
    published split, so subjects are drawn: `held_out` for the test, as many for validation, the others for
    training. Windows overlap in training (by `stride`) and not elsewhere, so that no second counts twice.

    Args:
        folder: the folder ``PPG_FieldStudy``, with ``S1/S1.pkl`` and so on.
        subjects: numbers of the subjects to read.
        length: steps in a window, a multiple of 128.
        stride: steps between the starts of two training windows, a multiple of 128.
        held_out: subjects for the test, and again for validation.
        seed: of the draw of subjects.

    Returns:
        The set, with subjects as groups.

    Raises:
        FileNotFoundError: a subject's file is missing.
        ValueError: a file holds something else, or a recording is shorter than a window.
    """
    folder = _checks.as_path(folder, "folder")
    subjects = _subjects(subjects)
    length, stride = _checks.integer("length", length), _checks.integer("stride", stride)
    held_out, seed = _checks.integer("held_out", held_out), _checks.integer("seed", seed, 0)
    if length < _HOP or length % _HOP or stride < _HOP or stride % _HOP:
        raise DataError(f"length and stride must be multiples of {_HOP} steps (2 s), not {length} and {stride}.")
    if not 0 < held_out < len(subjects) / 2:
        raise DataError(f"of {len(subjects)} subjects, {held_out} each for test and validation leave none to train.")
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
                raise DataError(f"{files[int(subject)]}: {len(signal)} steps are too few for one window of {length}.")
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
    """Read one subject: sensors at 64 Hz, and the heart rates (number n is over 2n s to 2n + 8 s)."""
    try:
        content: Any = load(read_bytes(file))
        wrist = _item(_item(content, "signal"), "wrist")
        sensors = {name: _column(_item(wrist, name), name, width) for name, width in _WIDTHS.items()}
        heart_rate = _column(_item(content, "label"), "label", 1)[:, 0]
    except PickleError as error:
        raise DataError(f"{file}: not a subject's file of PPG-DaLiA, or cut short ({error}).") from error
    for name, values in {**sensors, "label": heart_rate[:, None]}.items():
        if not np.isfinite(values).all():
            row = np.argwhere(~np.isfinite(values))[0][0]
            raise DataError(f"{file}: {name} is not finite in row {row}. Leave the subject out, or mend the file.")
    seconds = min(len(values) // _SENSORS[name] for name, values in sensors.items())
    columns = [
        np.repeat(values[: seconds * _SENSORS[name]], _RATE // _SENSORS[name], axis=0)
        for name, values in sensors.items()
    ]
    return np.concatenate(columns, axis=1), heart_rate


def _subjects(numbers: Sequence[int]) -> tuple[int, ...]:
    """Return the subjects to read, each of which may be on one side only."""
    try:
        found = tuple(_checks.integer("a subject", number, 0) for number in numbers)
    except TypeError as error:
        raise ArgumentTypeError(f"subjects must be numbers of subjects, such as (1, 2, 3): {error}") from None
    twice = sorted({number for number in found if found.count(number) > 1})
    if twice:
        raise DataError(f"subjects has {twice} more than once, which would be on several sides. List each once.")
    return found


def _item(content: Any, key: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise PickleError(f"it has no {key!r}")
    return content[key]


def _column(value: Any, name: str, width: int) -> Float[np.ndarray, "rows width"]:
    """Return a sensor as float32, shape (rows, width)."""
    values = as_numbers(value, name)
    if values.size == 0 or values.ndim not in (1, 2) or values.size != len(values) * width:
        raise PickleError(f"{name} has shape {values.shape}; expected are {width} columns")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        return values.astype(np.float32).reshape(-1, width)
