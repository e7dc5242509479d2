"""A regression from sequences to numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal._checks import shown

from ..data._arrays import series_of
from ._base import AbstractSequenceEstimator, dataset_of, split_of


class SequenceRegressor(AbstractSequenceEstimator):
    """A regression from sequences to numbers: an `HSSM` of oscillators, trained by echoes or by backprop.

    It works in the tools of scikit-learn that take arrays of three dimensions; scikit-learn itself is not needed.
    Parameters and further attributes are those of `AbstractSequenceEstimator`. Every output is scaled by its
    own mean and standard deviation for training.

    Example:
        ```python
        rng = np.random.default_rng(0)
        X = rng.normal(size=(40, 2, 30))
        y = X[:, 0].mean(axis=1)
        regressor = eg.SequenceRegressor(hidden=4, units=4, blocks=1, epochs=2).fit(X, y)
        regressor.predict(X).shape  # (40,)
        ```
    """

    def fit(self, X: Any, y: Any, groups: Any = None) -> "SequenceRegressor":
        """Train on cases.

        Args:
            X: an array of shape (cases, channels, steps), or (cases, steps) for one channel; or a list of arrays of
                shape (channels, steps) with any numbers of steps. NaN in all channels at the end of a case is padding.
            y: the target of every case, shape (cases,) or (cases, outputs).
            groups: the source of every case, such as a patient, shape (cases,). Whole groups become validation cases.

        Returns:
            The estimator.

        Raises:
            ArgumentTypeError: X or y are not real numbers.
            ArgumentError: X, y or a parameter has a wrong shape or value.
            TrainingDiverged: the loss, its gradient or an output is not finite.
        """
        series, targets = series_of("SequenceRegressor.fit", "X", X), _targets(y)
        flat = targets.ndim == 1
        columns = targets[:, None] if flat else targets
        # A data set has one scale for all targets. Columns have their own, because their units may differ.
        shift, scale = columns.mean(0), columns.std(0)
        scale = np.where(scale > 1e-12 * np.abs(shift), scale, 1.0)
        scaled = ((columns - shift) / scale).astype(np.float32)
        split = split_of("SequenceRegressor.fit", series, scaled, groups)
        self._train(dataset_of("arrays", split, ()))
        self._flat, self._shift, self._scale = flat, shift, scale
        return self

    def predict(self, X: Any) -> Float[np.ndarray, "cases ..."]:
        """Return the predicted targets, in their units and in the shape that `y` had in `fit`.

        Args:
            X: cases as for `fit`.

        Raises:
            NotFittedError: the estimator is not fitted.
            ArgumentError: the cases have another number of channels, or a value is missing.
        """
        outputs = self._shift + self._scale * self._predictions(X).outputs
        return outputs[:, 0] if self._flat else outputs

    def score(self, X: Any, y: Any) -> float:
        """Return the coefficient of determination R², averaged over outputs.

        Args:
            X: cases as for `fit`.
            y: their true targets.

        Raises:
            NotFittedError: the estimator is not fitted.
            ArgumentError: X and y do not fit together, or all true targets are equal.
        """
        found, true = self.predict(X), _targets(y)
        if found.shape != true.shape:
            raise ArgumentError(
                f"SequenceRegressor.score: predictions have shape {found.shape}, but y has shape {true.shape}."
            )
        spread = np.sum((true - true.mean(0)) ** 2, axis=0)
        if not np.all(spread > 0):
            raise ArgumentError("SequenceRegressor.score: all true targets are equal, so R² does not exist.")
        return float(np.mean(1 - np.sum((true - found) ** 2, axis=0) / spread))

    def _about(self) -> dict[str, Any]:
        return {"flat": self._flat, "shift": self._shift.tolist(), "scale": self._scale.tolist()}

    def _restore(self, about: Mapping[str, Any]) -> None:
        self._flat = bool(about["flat"])
        self._shift, self._scale = (np.array(about[name], np.float64) for name in ("shift", "scale"))

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags. Only scikit-learn calls this."""
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.target_tags.multi_output = True
        return tags


def _targets(y: Any) -> np.ndarray:
    """Return targets as finite real numbers of shape (cases,) or (cases, outputs)."""
    try:
        targets = np.asarray(y)
    except ValueError:  # a ragged list
        targets = np.asarray(None)
    if targets.dtype.kind not in "iuf":
        raise ArgumentTypeError(f"SequenceRegressor: y={shown(y)} must hold real numbers.")
    if targets.ndim not in (1, 2) or 0 in targets.shape:
        raise ArgumentError(
            f"SequenceRegressor: y has shape {targets.shape}; it must have shape (cases,) or (cases, outputs)."
        )
    if not np.all(np.abs(targets) <= np.finfo(np.float32).max):
        raise ArgumentError("SequenceRegressor: y has values that are missing or not finite in float32.")
    return targets.astype(np.float64)
