"""Long series for forecasting: the electricity transformer temperatures (ETT), and windows of a series."""

import dataclasses
import pathlib
from typing import Literal

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError
from echograd._internal import _checks

from .._paths import as_path
from . import _reading
from ._dataset import Dataset
from ._errors import DataError
from ._split import Split

NAMES = {"etth1": "ETTh1", "etth2": "ETTh2"}
LOOK_BACK = 336
_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
_HEAD = ",".join(("date", *_COLUMNS))
# Months of 30 days of 24 hours: 12 for training, 4 for validation, 4 for the test. Later rows are not used.
_TRAIN, _VALIDATION, _TEST = 8640, 11_520, 14_400


@dataclasses.dataclass(frozen=True, eq=False)
class LongSeries:
    """A long series of several channels, cut by time into training, validation and test.

    Attributes:
        name: name of the series.
        values: all channels, scaled by `mean` and `std`, float32 of shape (channels, steps).
        channel_names: one name for each channel.
        ends: the steps after the last one of training, validation and test.
        mean: mean of every channel over the training steps, shape (channels,).
        std: standard deviation of every channel over the training steps, shape (channels,).
    """

    name: str
    values: Float[np.ndarray, "channels steps"]
    channel_names: tuple[str, ...]
    ends: tuple[int, int, int]
    mean: Float[np.ndarray, " channels"]
    std: Float[np.ndarray, " channels"]

    def part(self, side: Literal["train", "validation", "test"], look_back: int = 0) -> Float[np.ndarray, "channels _"]:
        """Return the values of one side, with `look_back` steps before it.

        Args:
            side: ``"train"``, ``"validation"`` or ``"test"``.
            look_back: number of earlier steps, so that the first window of the side can begin before it; 0 for
                training.

        Raises:
            ArgumentError: the side is unknown, or there are fewer earlier steps.
        """
        _checks.choice("part", "side", side, ("train", "validation", "test"))
        at = ("train", "validation", "test").index(side)
        first = 0 if at == 0 else self.ends[at - 1]
        look_back = _checks.integer("part", "look_back", look_back, 0, first, "the number of earlier steps")
        return self.values[:, first - look_back : self.ends[at]]


def windows(
    series: Float[np.ndarray, "channels steps"], look_back: int, horizon: int
) -> tuple[Float[np.ndarray, "windows channels look_back"], Float[np.ndarray, "windows channels horizon"]]:
    """Return all windows of a series and the steps that follow each of them, as views that take no memory.

    Args:
        series: shape (channels, steps).
        look_back: number of steps in a window.
        horizon: number of steps to forecast.

    Raises:
        ArgumentError: a number is not an integer of at least 1, or the series is shorter than look_back + horizon.

    Example:
        ```python
        past, future = windows(np.arange(10.0)[None], look_back=4, horizon=2)
        past.shape, future.shape  # ((5, 1, 4), (5, 1, 2))
        ```
    """
    look_back = _checks.integer("windows", "look_back", look_back)
    horizon = _checks.integer("windows", "horizon", horizon)
    if series.ndim != 2 or series.shape[1] < look_back + horizon:
        raise ArgumentError(
            f"windows: a series of shape {series.shape} must have shape (channels, steps) with at least "
            f"look_back + horizon = {look_back + horizon} steps."
        )
    both = np.lib.stride_tricks.sliding_window_view(series, look_back + horizon, axis=1).swapaxes(0, 1)
    return both[:, :, :look_back], both[:, :, look_back:]


def read_ett_series(path: str | pathlib.Path) -> LongSeries:
    """Read ``ETTh1.csv`` or ``ETTh2.csv``: hourly loads and oil temperature of a transformer, seven channels.

    The split is the usual one: the first 12, 4 and 4 months of 30 days (8,640, 2,880 and 2,880 hours). Every channel
    is scaled by its mean and standard deviation over the training hours.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentTypeError: `path` is not a path.
        DataError: the file has another format or fewer than 14,400 rows, or a value is not a finite number.

    Source: H. Zhou et al., Informer, AAAI 2021 (arXiv 2012.07436).

    Example:
        ```python
        series = read_ett_series("ETT/ETTh1.csv")
        past, future = windows(series.part("test", look_back=336), 336, 96)  # 2,785 windows
        ```
    """
    path = as_path("read_ett_series", "path", path)
    rows = []
    for number, line in _reading.lines(path):
        fields = line.strip().split(",")
        if number == 1:
            if line.strip() != _HEAD:
                raise DataError(f"{path}: the first line is {line.strip()[:60]!r} instead of {_HEAD!r}.")
        elif line.strip():
            try:
                rows.append([float(field) for field in fields[1:]])
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}.") from None
            if len(fields) != len(_COLUMNS) + 1:
                raise DataError(f"{path}, line {number}: {len(fields)} fields instead of {len(_COLUMNS) + 1}.")
    if len(rows) < _TEST:
        raise DataError(f"{path}: {len(rows)} hours, but the usual split needs {_TEST}. Is the file truncated?")
    values = np.array(rows).T
    if not np.isfinite(values).all():
        channel, step = np.argwhere(~np.isfinite(values))[0]
        raise DataError(f"{path}: {_COLUMNS[channel]} is not finite in row {step + 2}. Download the file again.")
    mean, std = values[:, :_TRAIN].mean(axis=1), values[:, :_TRAIN].std(axis=1)
    if not std.all():
        raise DataError(f"{path}: {_COLUMNS[int(np.argmin(std))]} is constant in training. Is it another file?")
    scaled = ((values - mean[:, None]) / std[:, None]).astype(np.float32)
    return LongSeries(path.stem, scaled, _COLUMNS, (_TRAIN, _VALIDATION, _TEST), mean, std)


def read_ett(path: str | pathlib.Path, *, horizon: int = 96, look_back: int = LOOK_BACK, stride: int = 4) -> Dataset:
    """Read ``ETTh1.csv`` or ``ETTh2.csv`` as windows with the hours that follow them; see `read_ett_series`.

    A case is a window of all channels. Its target has shape (1, horizon · 7): the next `horizon` hours of the first
    channel, then of the second one, and so on, to be read at the last step. Inputs and targets are scaled by the
    training hours, so a mean squared error in the units of the targets is the published one.

    Every window of validation and test is a case. Windows of validation and test begin up to `look_back` hours before
    their side; their targets do not. `SequenceForecaster` treats channels alike and normalises every window, which
    is usually better.

    Args:
        path: the file.
        horizon: number of hours to forecast; published are 96, 192, 336 and 720.
        look_back: number of hours in a window.
        stride: number of hours between the starts of two training windows, which limits memory and time.

    Raises:
        ArgumentError: a number is not an integer of at least 1, or windows are longer than a side of the split.
        DataError: see `read_ett_series`.

    Example:
        ```python
        dataset = read_ett("ETT/ETTh1.csv", horizon=336)
        ```
    """
    series = read_ett_series(path)
    stride = _checks.integer("read_ett", "stride", stride)

    def split(side: Literal["train", "validation", "test"]) -> Split:
        past, future = windows(series.part(side, 0 if side == "train" else look_back), look_back, horizon)
        step = stride if side == "train" else 1
        past, future = past[::step], future[::step]
        inputs = np.ascontiguousarray(past.swapaxes(1, 2))
        return Split(inputs, future.reshape(len(future), 1, -1), np.full(len(past), look_back, np.int32))

    return Dataset(
        name=f"{series.name.lower()}-{horizon}",
        train=split("train"),
        validation=split("validation"),
        test=split("test"),
        task="regression",
        class_names=(),
        channel_names=series.channel_names,
        sample_rate=1 / 3600,
        description=(
            f"Forecast of the next {horizon} hours from {look_back} hours. Split by time: 12, 4 and 4 months. "
            "Scaled by the training hours. "
            f"Training windows start every {stride} hours, validation and test windows every hour."
        ),
        source="ETDataset, https://github.com/zhouhaoyi/ETDataset. Cite Zhou et al., Informer, AAAI 2021.",
        licence="CC BY-ND 4.0, as stated by the repository",
    )
