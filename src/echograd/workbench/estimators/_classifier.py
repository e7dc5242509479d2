"""A classifier of sequences."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal._checks import shown

from ..data import DataError
from ..data._arrays import series_of
from ._base import AbstractSequenceEstimator, dataset_of, split_of


class SequenceClassifier(AbstractSequenceEstimator):
    """A classifier of sequences: an `HSSM` of oscillators, or a Hopfield network, trained by echoes or by backprop.

    It works in the tools of scikit-learn that take arrays of three dimensions (`clone`, `cross_val_score`, `Pipeline`,
    `GridSearchCV`); scikit-learn itself is not needed. Parameters and further attributes are those of
    `AbstractSequenceEstimator`.

    Attributes:
        classes_: the class labels, sorted, after `fit`.

    Example:
        ```python
        rng = np.random.default_rng(0)
        y = np.arange(40) % 2
        X = np.sin((0.2 + 0.6 * y[:, None, None]) * np.arange(30)) + 0.1 * rng.normal(size=(40, 1, 30))
        classifier = eg.SequenceClassifier(hidden=4, units=4, blocks=1, epochs=2).fit(X, y)
        classifier.predict_proba(X).shape  # (40, 2)
        ```
    """

    def fit(self, X: Any, y: Any, groups: Any = None) -> "SequenceClassifier":
        """Train on cases.

        Args:
            X: an array of shape (cases, channels, steps), or (cases, steps) for one channel; or a list of arrays of
                shape (channels, steps) with any numbers of steps. NaN in all channels at the end of a case is padding.
            y: the class of every case, shape (cases,): integers, strings or booleans.
            groups: the source of every case, such as a patient, shape (cases,). Whole groups become validation cases.

        Returns:
            The estimator.

        Raises:
            ArgumentTypeError: X is not real numbers, or y is not classes.
            ArgumentError: X, y or a parameter has a wrong shape or value, there is only one class, or a class has too
                few cases to validate.
            TrainingDiverged: the loss, its gradient or an output is not finite.
        """
        series, labels = series_of("SequenceClassifier.fit", "X", X), _labels(y)
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ArgumentError(
                f"SequenceClassifier.fit: y has one class only, {shown(classes[0].item())}. Pass at least 2 classes."
            )
        split = split_of("SequenceClassifier.fit", series, targets, groups)
        self._train(dataset_of("arrays", split, tuple(map(str, classes))))
        self.classes_ = classes
        return self

    def predict(self, X: Any) -> Shaped[np.ndarray, " cases"]:
        """Return the most probable class of every case.

        Args:
            X: cases as for `fit`.

        Raises:
            NotFittedError: the estimator is not fitted.
            ArgumentError: the cases have another number of channels, or a value is missing.
        """
        outputs = self._predictions(X).outputs
        return self.classes_[outputs.argmax(1)]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "cases classes"]:
        """Return the probability of every class, in the order of `classes_`.

        Args:
            X: cases as for `fit`.

        Raises:
            NotFittedError: the estimator is not fitted.
            ArgumentError: the cases have another number of channels, or a value is missing.
        """
        return self._predictions(X, "predict_proba").probabilities

    def score(self, X: Any, y: Any) -> float:
        """Return the share of cases whose class is predicted correctly.

        Args:
            X: cases as for `fit`.
            y: their true classes.

        Raises:
            NotFittedError: the estimator is not fitted.
            ArgumentError: X and y do not fit together.
        """
        found, true = self.predict(X), _labels(y)
        if len(found) != len(true):
            raise ArgumentError(f"SequenceClassifier.score: X has {len(found)} cases, but y has {len(true)}.")
        return float(np.mean(found == true))

    def _about(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist(), "dtype": self.classes_.dtype.str}

    def _restore(self, about: Mapping[str, Any]) -> None:
        dtype = np.dtype(about["dtype"])
        if dtype.kind not in "biuU":
            raise DataError(f"its classes have the dtype {dtype}")
        self.classes_ = np.array(about["classes"], dtype)

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags. Only scikit-learn calls this."""
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        return tags


def _labels(y: Any) -> np.ndarray:
    """Return class labels as an array of integers, booleans or strings of shape (cases,)."""
    try:
        labels = np.asarray(y)
    except ValueError:  # a ragged list
        labels = np.asarray(None)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype == object and labels.ndim == 1 and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.dtype.kind == "f" and labels.ndim == 1 and labels.size:
        if np.isnan(labels).any():
            raise ArgumentError(f"SequenceClassifier: y has {np.isnan(labels).sum()} NaN. Leave these cases out.")
        if (labels != np.round(labels)).any():
            raise ArgumentTypeError(
                "SequenceClassifier: y holds real numbers, not classes. Use SequenceRegressor, or pass integers or "
                "strings."
            )
        labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "biuU":
        raise ArgumentTypeError(
            f"SequenceClassifier: y={shown(y)} must be integers, booleans or strings of shape (cases,); it is "
            f"{labels.dtype} of shape {labels.shape}."
        )
    return labels
