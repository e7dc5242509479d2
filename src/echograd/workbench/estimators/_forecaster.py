"""A forecaster of long series."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from echograd import ArgumentError
from echograd._internal import _checks

from ..data import Dataset, Split, windows
from ..training._trainer import Progress
from ._base import AbstractSequenceEstimator
from ._forecast import AbstractForecaster, series_of

_LEAST = 1e-2  # the least deviation of a window, in units of the deviation of the fitted series


class SequenceForecaster(AbstractForecaster, AbstractSequenceEstimator):
    """A forecaster of long series: an `HSSM` reads a window, and its last state forecasts the steps after it.

    It is causal: a forecast depends on the window before it only. Further parameters and attributes are those of
    `AbstractSequenceEstimator`. The last share of every series, `validation_fraction`, chooses the best epoch; no
    training window reaches into it.

    Args:
        horizon: number of steps to forecast.
        look_back: number of steps in a window.
        normalise: "last" subtracts the last value of a window from the window and from the forecast; "mean" subtracts
            its mean and divides by its standard deviation; None does neither.
        channels: "independent" treats every channel as a series of its own, with one model for all; "together" reads
            and forecasts all channels at once.
        max_windows: largest number of training cases; windows are chosen evenly in time.
        options: keyword parameters of `AbstractSequenceEstimator`.

    Example:
        ```python
        series = np.sin(np.arange(300.0))[None]
        forecaster = eg.SequenceForecaster(8, look_back=32, hidden=4, units=4, blocks=1, epochs=2).fit(series)
        forecaster.predict().shape  # (1, 8)
        ```
    """

    def __init__(
        self,
        horizon: int,
        *,
        look_back: int = 336,
        normalise: Literal["last", "mean"] | None = "last",
        channels: Literal["independent", "together"] = "independent",
        max_windows: int = 8192,
        model: Literal["linear", "nonlinear", "damped"] | None = None,
        gradient: Literal["echo", "backprop"] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        patience: int | None = None,
        validation_fraction: float = 0.2,
        hidden: int | None = None,
        units: int | None = None,
        blocks: int | None = None,
        dropout: float | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        precision: Literal["float32", "float64"] | None = None,
        seed: int = 0,
        ensemble: int = 1,
        settings: Mapping[str, Any] | None = None,
        progress: bool | Callable[[Progress], None] = False,
    ) -> None:
        super().__init__(
            model, gradient, epochs=epochs, batch_size=batch_size, patience=patience,
            validation_fraction=validation_fraction, hidden=hidden, units=units, blocks=blocks, dropout=dropout,
            learning_rate=learning_rate, weight_decay=weight_decay, precision=precision, seed=seed, ensemble=ensemble,
            settings=settings, progress=progress,
        )  # fmt: skip
        self.horizon = horizon
        self.look_back = look_back
        self.normalise = normalise
        self.channels = channels
        self.max_windows = max_windows

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Args:
            deep: has no effect, because no parameter is an estimator.
        """
        return super().get_params(deep)

    def fit(self, X: Any, y: None = None) -> "SequenceForecaster":
        """Train on a series.

        Args:
            X: a series of shape (channels, steps), or a list of them with the same channels.
            y: not used.

        Returns:
            The forecaster.

        Raises:
            ArgumentTypeError: the series does not hold real numbers.
            ArgumentError: a series is too short for one training and one validation window, or a parameter has a wrong
                value.
            TrainingDiverged: the loss, its gradient or an output is not finite.
        """
        owner = "SequenceForecaster"
        horizon = _checks.integer(owner, "horizon", self.horizon)
        look_back = _checks.integer(owner, "look_back", self.look_back)
        most = _checks.integer(owner, "max_windows", self.max_windows)
        _checks.choice(owner, "channels", self.channels, ("independent", "together"))
        _checks.choice(owner, "normalise", self.normalise, ("last", "mean", None))
        share = _checks.constant(
            owner, "validation_fraction", self.validation_fraction, lambda x: 0 < x < 1, "it must be between 0 and 1"
        )
        found, listed = series_of(f"{owner}.fit", X, look_back + horizon)
        cuts = [series.shape[1] - max(round(share * series.shape[1]), 1) for series in found]
        for series, cut in zip(found, cuts, strict=True):
            if cut < look_back + horizon or series.shape[1] - cut < horizon:
                raise ArgumentError(
                    f"{owner}.fit: a series of {series.shape[1]} steps has {cut} for training and "
                    f"{series.shape[1] - cut} for validation; needed are look_back + horizon = {look_back + horizon} "
                    f"and horizon = {horizon}. Pass a longer series, or change validation_fraction."
                )
        before = [series[:, :cut] for series, cut in zip(found, cuts, strict=True)]
        after = [series[:, cut - look_back :] for series, cut in zip(found, cuts, strict=True)]
        self._least = _LEAST * max(float(np.mean([np.std(series) for series in before])), 1e-30)
        train, held = self._cases(before, most), self._cases(after, max(most // 4, 1))
        names = tuple(f"channel {i}" for i in range(train.inputs.shape[2]))
        self._train(Dataset("windows", train, held, held, "regression", (), names, None, "", "", ""))
        self._remember(found, listed)
        self.n_features_in_ = len(found[0])
        return self

    def _cases(self, series: list[np.ndarray], most: int) -> Split:
        """Return windows as cases, at most so many, evenly chosen."""
        pairs = [windows(one, self.look_back, self.horizon) for one in series]
        each = len(series[0]) if self.channels == "independent" else 1
        stride = -(-sum(len(past) for past, _ in pairs) * each // most)
        inputs, targets = [], []
        for past, future in pairs:
            cases, shift, scale = self._normalised(past[::stride])
            inputs.append(self._grouped(cases))
            targets.append(self._grouped((future[::stride] - shift) / scale))
        stacked = np.concatenate(inputs).swapaxes(1, 2).astype(np.float32)
        flat = np.concatenate(targets)
        return Split(
            np.ascontiguousarray(stacked),
            flat.reshape(len(flat), -1).astype(np.float32),
            np.full(len(flat), self.look_back, np.int32),
        )

    def _grouped(self, values: np.ndarray) -> np.ndarray:
        """Return (windows, channels, steps) as cases: every channel one, or all channels one."""
        return values.reshape(-1, 1, values.shape[2]) if self.channels == "independent" else values

    def _normalised(self, past: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return windows after normalisation, and what was subtracted and divided by."""
        shift, scale = np.zeros(()), np.ones(())
        if self.normalise == "last":
            shift = past[:, :, -1:]
        elif self.normalise == "mean":
            shift = past.mean(axis=2, keepdims=True)
            scale = np.maximum(past.std(axis=2, keepdims=True), self._least)
        return (past - shift) / scale, shift, scale

    def _forecast(self, past: np.ndarray) -> np.ndarray:
        cases, shift, scale = self._normalised(past)
        outputs = self._predictions(self._grouped(cases), "predict").outputs
        return outputs.reshape(*past.shape[:2], self.horizon) * scale + shift

    def _check_fitted(self, owner: str) -> None:
        self._fitted(owner)

    def _settings(self) -> Any:
        # The last state forecasts, so every case must end with the newest step: no crops. Patches shorten long windows;
        # they divide the window.
        patch = next((n for n in (8, 4, 2) if self.look_back % n == 0 and self.look_back >= 16 * n), 1)
        given = dict(self.settings or {})
        network = {"pooling": "last", "patch": patch, **given.pop("network", {})}
        return {"crop": 1.0, **given, "network": network}

    def _about(self) -> dict[str, Any]:
        return {"least": self._least, "tails": [tail.tolist() for tail in self._tails], "listed": self._listed}

    def _restore(self, about: Mapping[str, Any]) -> None:
        self._least, self._listed = float(about["least"]), bool(about["listed"])
        self._tails = [np.array(tail, np.float64) for tail in about["tails"]]
