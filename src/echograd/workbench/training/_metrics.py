"""Metrics of predictions: confusion matrix, balanced accuracy, macro F1, and errors of a regression."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal import _checks


def confusion_matrix(
    targets: Int[np.ndarray, " cases"], predictions: Int[np.ndarray, " cases"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count the cases of every true class (rows) and predicted class (columns).

    Args:
        targets: true class indices, shape (cases,).
        predictions: predicted class indices, shape (cases,).
        classes: number of classes.

    Returns:
        Counts, int64 of shape (classes, classes).

    Raises:
        ArgumentTypeError: class indices are not integers of shape (cases,).
        ArgumentError: `classes` is not an integer of at least 1, the arrays differ in length, or an index is not from
            0 to `classes - 1`.

    Example:
        ```python
        confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)  # [[1, 1], [0, 1]]
        ```
    """
    classes = _checks.integer("confusion_matrix", "classes", classes)
    true = _indices("confusion_matrix: targets", targets, classes)
    predicted = _indices("confusion_matrix: predictions", predictions, classes)
    if len(true) != len(predicted):
        raise ArgumentError(
            f"confusion_matrix: {len(true)} targets and {len(predicted)} predictions; pass one of each for every case."
        )
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _indices(what: str, values: Any, classes: int) -> np.ndarray:
    """Return class indices as int64, or raise."""
    indices = np.asarray(values)
    if indices.ndim != 1 or not (indices.size == 0 or np.issubdtype(indices.dtype, np.integer)):
        raise ArgumentTypeError(
            f"{what} must be integers of shape (cases,); they are {indices.dtype} of shape {indices.shape}."
        )
    if indices.size and not 0 <= indices.min() <= indices.max() < classes:
        raise ArgumentError(
            f"{what} go from {indices.min()} to {indices.max()}, but the indices of {classes} classes go from 0 to "
            f"{classes - 1}."
        )
    return indices.astype(np.int64)


def _reals(what: str, values: Any, ndim: int | None = None) -> np.ndarray:
    """Return real numbers as float64, or raise."""
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iuf" and not (numbers.dtype.kind == "V" and numbers.dtype.name == "bfloat16"):
        raise ArgumentTypeError(f"{what} must be real numbers; they are {numbers.dtype}.")
    if ndim is not None and numbers.ndim != ndim:
        raise ArgumentError(f"{what} must have {ndim} dimensions; their shape is {numbers.shape}.")
    return numbers.astype(np.float64)


def _finite(what: str, numbers: np.ndarray) -> np.ndarray:
    """Return the numbers, or raise if one of them is not finite."""
    wrong = int(np.count_nonzero(~np.isfinite(numbers)))
    if wrong:
        raise ArgumentError(
            f"{what}: {wrong} of {numbers.size} numbers are NaN or infinite, so there is no score. If a model computed "
            "them, it has diverged: train it with a lower learning rate."
        )
    return numbers


def scores_from_confusion(confusion: Int[np.ndarray, "classes classes"]) -> dict[str, float]:
    r"""Return accuracy, balanced accuracy and macro F1.

    With true positives $t_c$, cases $n_c$ and predictions $m_c$ of class $c$,

    $$\text{accuracy} = \frac{\sum_c t_c}{\sum_c n_c}, \quad \text{balanced} = \operatorname{mean}_c \frac{t_c}{n_c},
    \quad F_1 = \operatorname{mean}_c \frac{2 t_c}{n_c + m_c}.$$

    Classes without cases are left out of both means, with one exception: a class without cases that was predicted
    counts as $F_1 = 0$.

    Args:
        confusion: counts of shape (classes, classes), true classes in rows.

    Returns:
        `{"accuracy", "balanced_accuracy", "f1"}`; all are NaN if there are no cases.

    Raises:
        ArgumentTypeError: the matrix does not hold real numbers.
        ArgumentError: the matrix is not square, or a number is negative, NaN or infinite.

    Source: K. H. Brodersen et al., ICPR 2010, for the balanced accuracy.

    Example:
        ```python
        scores_from_confusion(np.array([[8, 2], [1, 1]]))  # accuracy 0.75, balanced accuracy 0.65, f1 0.62
        ```
    """
    table = _finite("scores_from_confusion", _reals("scores_from_confusion: the counts", confusion, 2))
    if table.shape[0] != table.shape[1] or not table.size:
        raise ArgumentError(
            f"scores_from_confusion: confusion has shape {table.shape} and must be square, of shape (classes, classes)."
        )
    if table.min() < 0:
        raise ArgumentError(f"scores_from_confusion: the smallest count is {table.min():g}; it must be at least 0.")
    right, cases, predicted = np.diag(table), table.sum(1), table.sum(0)
    if not cases.any():
        return dict.fromkeys(("accuracy", "balanced_accuracy", "f1"), float("nan"))
    there, seen = cases > 0, cases + predicted > 0
    return {
        "accuracy": float(right.sum() / cases.sum()),
        "balanced_accuracy": float(np.mean(right[there] / cases[there])),
        "f1": float(np.mean(2 * right[seen] / (cases + predicted)[seen])),
    }


def classification_metrics(
    logits: Float[np.ndarray, "cases classes"],
    targets: Int[np.ndarray, " cases"],
    class_weights: Float[np.ndarray, " classes"] | None = None,
) -> dict[str, float | list[list[int]]]:
    r"""Return the metrics of a classifier.

    The loss is the weighted cross-entropy $\sum_i w_{y_i} (-\log p_i(y_i)) / \sum_i w_{y_i}$.

    Args:
        logits: unnormalised log-probabilities, shape (cases, classes).
        targets: class indices, shape (cases,).
        class_weights: weights $w$ of the classes in the loss, shape (classes,); `None` gives all the weight 1.

    Returns:
        `{"loss", "accuracy", "balanced_accuracy", "f1", "confusion"}`, see `scores_from_confusion`.

    Raises:
        ArgumentTypeError: the logits are not real numbers, or the targets are not integers.
        ArgumentError: there are no cases, shapes do not match, an index is out of range, a logit or weight is not
            finite, or the weights of all cases are 0.

    Example:
        ```python
        classification_metrics(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))["accuracy"]  # 0.5
        ```
    """
    who = "classification_metrics"
    logits = _finite(f"{who}: logits", _reals(f"{who}: logits", logits, 2))
    classes = logits.shape[1]
    targets = _indices(f"{who}: targets", targets, classes)
    if len(logits) != len(targets) or not logits.size:
        raise ArgumentError(
            f"{who}: {len(targets)} targets for logits of shape {logits.shape}; pass one target for every case."
        )
    shifted = logits - logits.max(1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    weights = np.ones(classes) if class_weights is None else _reals(f"{who}: class_weights", class_weights, 1)
    if weights.shape != (classes,) or _finite(f"{who}: class_weights", weights).min() < 0 or not weights[targets].any():
        raise ArgumentError(
            f"{who}: class_weights={weights.tolist()} must be one number for each of {classes} classes, at least 0 and "
            "not 0 for all cases."
        )
    surprise = -log_probability[np.arange(len(targets)), targets]
    confusion = confusion_matrix(targets, logits.argmax(1), classes)
    return {
        "loss": float(weights[targets] @ surprise / weights[targets].sum()),
        **scores_from_confusion(confusion),
        "confusion": confusion.tolist(),
    }


def regression_metrics(
    predictions: Float[np.ndarray, "..."], targets: Num[np.ndarray, "..."], mask: np.ndarray | None = None
) -> dict[str, float]:
    r"""Return the metrics of a regression, over all predicted numbers.

    $$\text{MSE} = \operatorname{mean}\,(\hat y - y)^2, \quad \text{MAE} = \operatorname{mean}\,|\hat y - y|, \quad
    R^2 = 1 - \frac{\text{MSE}}{\operatorname{mean}\,(y - \bar y)^2}.$$

    Args:
        predictions: real numbers of any shape.
        targets: real numbers of the same shape.
        mask: booleans of the same shape, True where a number counts; `None` counts all numbers.

    Returns:
        `{"mse", "mae", "r2"}`; R² is NaN if all targets are equal.

    Raises:
        ArgumentTypeError: predictions or targets are not real numbers, or the mask is not boolean.
        ArgumentError: shapes differ, no number counts, or a number that counts is not finite.

    Example:
        ```python
        regression_metrics(np.array([1.0, 3.0]), np.array([1.0, 2.0]))  # mse 0.5, mae 0.5, r2 -1
        ```
    """
    found, true = _reals("regression_metrics: predictions", predictions), _reals("regression_metrics: targets", targets)
    if found.shape != true.shape:
        raise ArgumentError(
            f"regression_metrics: predictions have shape {found.shape}, but targets have shape {true.shape}."
        )
    counts = np.ones(true.shape, bool) if mask is None else np.asarray(mask)
    if counts.dtype != bool or counts.shape != true.shape:
        kind = ArgumentTypeError if counts.dtype != bool else ArgumentError
        raise kind(
            f"regression_metrics: mask is {counts.dtype} of shape {counts.shape}; it must be booleans of shape "
            f"{true.shape}."
        )
    if not counts.any():
        raise ArgumentError("regression_metrics: there are no unmasked numbers to score.")
    y = _finite("regression_metrics: targets", true[counts])
    error = _finite("regression_metrics: predictions", found[counts]) - y
    mse, spread = float(np.mean(error**2)), float(np.mean((y - y.mean()) ** 2))
    return {"mse": mse, "mae": float(np.mean(np.abs(error))), "r2": 1 - mse / spread if spread > 0 else float("nan")}
