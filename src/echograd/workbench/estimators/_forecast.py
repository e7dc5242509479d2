"""Forecasts of long series: the rolling evaluation, and two baselines."""

import abc
from typing import Any

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal import _checks
from echograd._internal._checks import shown

from ..data import windows
from ._errors import NotFittedError
from ._parameters import Parameters

_CHUNK = 256  # windows in memory at a time


class AbstractForecaster(abc.ABC):
    """The base of forecasters: the next `horizon` steps of a series from the `look_back` steps before them.

    A subclass writes `fit` and `_forecast`. It sets `_tails`, the last windows of the fitted series, and `_channels`.
    """

    horizon: int
    look_back: int
    _tails: list[np.ndarray]
    _listed: bool

    @abc.abstractmethod
    def fit(self, X: Any, y: None = None) -> "AbstractForecaster":
        """Learn from a series, or from a list of them."""

    @abc.abstractmethod
    def _forecast(self, past: Float[np.ndarray, "windows channels look_back"]) -> np.ndarray:
        """Return the forecast of every window, shape (windows, channels, horizon)."""

    def predict(self, X: Any = None) -> Any:
        """Forecast the steps after a series.

        Args:
            X: a series of shape (channels, steps), of which the last `look_back` steps are read; or a list of them; by
                default the fitted series.

        Returns:
            The next `horizon` steps, shape (channels, horizon), in the units of the series; a list for a list.

        Raises:
            NotFittedError: the forecaster is not fitted.
            ArgumentError: a series is shorter than `look_back`, has another number of channels, or holds missing
                values.
        """
        self._check_fitted("predict")
        if X is None:
            tails, listed = self._tails, self._listed
        else:
            found, listed = series_of(f"{type(self).__name__}.predict", X, self.look_back)
            tails = [self._checked(series)[:, -self.look_back :] for series in found]
        forecasts = [self._forecast(tail[None])[0] for tail in tails]
        return forecasts if listed else forecasts[0]

    def evaluate(self, X: Any) -> dict[str, float]:
        """Forecast from every window of a series and compare with the steps that follow: the rolling evaluation.

        Args:
            X: a series of shape (channels, steps) with at least look_back + horizon steps, or a list of them. For the
                published evaluation pass the test steps with the `look_back` steps before them, scaled by the training
                steps (`LongSeries.part`).

        Returns:
            ``"mse"`` and ``"mae"``, means over windows, channels and horizon, and the number of ``"windows"``.

        Raises:
            NotFittedError: the forecaster is not fitted.
            ArgumentError: see `predict`.
        """
        self._check_fitted("evaluate")
        count, squares, sizes = 0, 0.0, 0.0
        for series in series_of(f"{type(self).__name__}.evaluate", X, self.look_back + self.horizon)[0]:
            past, future = windows(self._checked(series), self.look_back, self.horizon)
            for start in range(0, len(past), _CHUNK):
                error = self._forecast(past[start : start + _CHUNK]) - future[start : start + _CHUNK]
                squares += float(np.sum(error**2)) / error[0].size
                sizes += float(np.sum(np.abs(error))) / error[0].size
            count += len(past)
        return {"mse": squares / count, "mae": sizes / count, "windows": count}

    def _remember(self, series: list[np.ndarray], listed: bool) -> None:
        self._tails, self._listed = [one[:, -self.look_back :].copy() for one in series], listed

    def _checked(self, series: np.ndarray) -> np.ndarray:
        if len(series) != len(self._tails[0]):
            raise ArgumentError(
                f"{type(self).__name__}: a series has {len(series)} channels, but the fitted one has "
                f"{len(self._tails[0])}. The axes are (channels, steps)."
            )
        return series

    def _check_fitted(self, owner: str) -> None:
        if not hasattr(self, "_tails"):
            raise NotFittedError(f"{type(self).__name__}.{owner}: it is not fitted. Call fit(series) first.")


class PersistenceForecaster(Parameters, AbstractForecaster):
    """Repeat the last `period` steps of a series: the last value, or the last day.

    Args:
        horizon: number of steps to forecast.
        period: number of steps that are repeated; 1 repeats the last value, 24 the last day of hours.

    Example:
        ```python
        PersistenceForecaster(horizon=4, period=2).fit(np.arange(10.0)[None]).predict()  # [[8, 9, 8, 9]]
        ```
    """

    def __init__(self, horizon: int, period: int = 1) -> None:
        self.horizon = horizon
        self.period = period

    @property
    def look_back(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Number of steps that are read."""
        return self.period

    def fit(self, X: Any, y: None = None) -> "PersistenceForecaster":
        """Remember the last steps of a series of shape (channels, steps), or of a list of them."""
        _checks.integer("PersistenceForecaster", "horizon", self.horizon)
        _checks.integer("PersistenceForecaster", "period", self.period)
        self._remember(*series_of("PersistenceForecaster.fit", X, self.period))
        return self

    def _forecast(self, past: np.ndarray) -> np.ndarray:
        return past[:, :, np.arange(self.horizon) % self.period]


class LinearForecaster(Parameters, AbstractForecaster):
    r"""A linear map from a window to the steps after it, found in closed form: the baseline to beat.

    The last value of a window is subtracted from the window and from the forecast. All channels share one matrix:
    $W = (X^T X + \lambda I)^{-1} X^T Y$ over all windows of all channels, with a constant term that is not penalised.

    Args:
        horizon: number of steps to forecast.
        look_back: number of steps that are read.
        ridge: the penalty λ, per window and in units of the mean square of the inputs.

    Source: A. Zeng et al., Are transformers effective for time series forecasting?, AAAI 2023 (arXiv 2205.13504); there
    NLinear is trained by gradient descent.

    Example:
        ```python
        LinearForecaster(horizon=8, look_back=24).fit(np.sin(np.arange(200.0))[None]).predict().shape  # (1, 8)
        ```
    """

    def __init__(self, horizon: int, look_back: int = 336, ridge: float = 1e-2) -> None:
        self.horizon = horizon
        self.look_back = look_back
        self.ridge = ridge

    def fit(self, X: Any, y: None = None) -> "LinearForecaster":
        """Solve for the matrix.

        Args:
            X: a series of shape (channels, steps) with at least look_back + horizon steps, or a list of them.
            y: not used.

        Raises:
            ArgumentError: a series is too short, or a parameter is out of range.
        """
        owner = "LinearForecaster"
        horizon = _checks.integer(owner, "horizon", self.horizon)
        look_back = _checks.integer(owner, "look_back", self.look_back)
        ridge = _checks.constant(owner, "ridge", self.ridge, _checks.positive, "it must be positive")
        found, listed = series_of(f"{owner}.fit", X, look_back + horizon)
        square, cross, count = np.zeros((look_back + 1,) * 2), np.zeros((look_back + 1, horizon)), 0
        for series in found:
            past, future = windows(series, look_back, horizon)
            for start in range(0, len(past), _CHUNK):
                inputs, last = _shifted(past[start : start + _CHUNK])
                targets = (future[start : start + _CHUNK] - last).reshape(-1, horizon)
                square += inputs.T @ inputs
                cross += inputs.T @ targets
                count += len(inputs)
        penalty = ridge * max(np.trace(square[:-1, :-1]) / look_back, 1e-12 * count)
        square[np.arange(look_back), np.arange(look_back)] += penalty
        self.weights_ = np.linalg.solve(square, cross)
        self._remember(found, listed)
        return self

    def _forecast(self, past: np.ndarray) -> np.ndarray:
        inputs, last = _shifted(past)
        return (inputs @ self.weights_).reshape(*past.shape[:2], self.horizon) + last


def _shifted(past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return windows of all channels less their last value, with a column of ones; and the last values."""
    last = past[:, :, -1:].astype(np.float64)
    inputs = (past - last).reshape(-1, past.shape[2])
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1), last


def series_of(owner: str, X: Any, least: int) -> tuple[list[np.ndarray], bool]:
    """Return series as float64 arrays of shape (channels, steps), and whether a list was passed."""
    listed = isinstance(X, list | tuple)
    found = []
    for item in X if listed else [X]:
        try:
            series = np.asarray(item)
        except ValueError:  # a ragged list
            series = np.asarray(None)
        if series.dtype.kind not in "iuf":
            raise ArgumentTypeError(f"{owner}: {shown(item)} is not a series of real numbers, shape (channels, steps).")
        if series.ndim != 2 or 0 in series.shape:
            raise ArgumentError(f"{owner}: a series has shape {series.shape} instead of (channels, steps).")
        if series.shape[1] < least:
            raise ArgumentError(f"{owner}: a series has {series.shape[1]} steps; at least {least} are needed.")
        if not np.isfinite(series).all():
            channel, step = np.argwhere(~np.isfinite(series))[0]
            raise ArgumentError(
                f"{owner}: channel {channel} is {series[channel, step]} at step {step}. Fill missing values first."
            )
        found.append(series.astype(np.float64))
    if not found or len({len(series) for series in found}) > 1:
        raise ArgumentError(f"{owner}: pass one series or more, all with the same number of channels.")
    return found, listed
