"""How good predictions are, beyond accuracy."""

import numpy as np
from jaxtyping import Float, Int, Num


def confusion_matrix(
    targets: Int[np.ndarray, " cases"], predictions: Int[np.ndarray, " cases"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count the cases of every class (rows) that were predicted to be of every class (columns).

    Args:
        targets: true class indices.
        predictions: predicted class indices.
        classes: number of classes.

    Returns:
        Counts, int64.

    Example:
        ```python
        confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)  # [[1, 1], [0, 1]]
        ```
    """
    return np.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)


def scores_from_confusion(confusion: Int[np.ndarray, "classes classes"]) -> dict[str, float]:
    r"""Return accuracy, balanced accuracy and macro F1.

    With true positives $t_c$, cases $n_c$ and predictions $m_c$ of class $c$,

    $$\text{accuracy} = \frac{\sum_c t_c}{\sum_c n_c}, \quad \text{balanced} = \operatorname{mean}_c \frac{t_c}{n_c},
    \quad F_1 = \operatorname{mean}_c \frac{2 t_c}{n_c + m_c}.$$

    Classes that have no case count in none of the means, except that a class without cases which was predicted
    counts as $F_1 = 0$.

    Args:
        confusion: counts, true classes in rows.

    Returns:
        `{"accuracy", "balanced_accuracy", "f1"}`, NaN if there are no cases.

    Source: K. H. Brodersen et al., ICPR 2010, for the balanced accuracy.

    Example:
        ```python
        scores_from_confusion(np.array([[8, 2], [1, 1]]))  # accuracy 0.75, balanced accuracy 0.65, f1 0.62
        ```
    """
    right = np.diag(confusion).astype(np.float64)
    cases, predicted = confusion.sum(1), confusion.sum(0)
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
        logits: unnormalised log-probabilities.
        targets: class indices.
        class_weights: weights $w$ of the classes in the loss; `None`: all 1.

    Returns:
        `{"loss", "accuracy", "balanced_accuracy", "f1", "confusion"}`, see `scores_from_confusion`.

    Example:
        ```python
        classification_metrics(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))["accuracy"]  # 0.5
        ```
    """
    logits = logits.astype(np.float64)
    classes = logits.shape[1]
    shifted = logits - logits.max(1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    weights = np.ones(classes) if class_weights is None else class_weights.astype(np.float64)
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
    r"""Return the metrics of a regression, over all numbers that are predicted.

    $$\text{MSE} = \operatorname{mean}\,(\hat y - y)^2, \quad \text{MAE} = \operatorname{mean}\,|\hat y - y|, \quad
    R^2 = 1 - \frac{\text{MSE}}{\operatorname{mean}\,(y - \bar y)^2}.$$

    Args:
        predictions: any shape.
        targets: the same shape.
        mask: True where a number counts, of the same shape; `None`: everywhere.

    Returns:
        `{"mse", "mae", "r2"}`; R² is NaN where all targets are the same.

    Example:
        ```python
        regression_metrics(np.array([1.0, 3.0]), np.array([1.0, 2.0]))  # mse 0.5, mae 0.5, r2 -1
        ```
    """
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions of shape {predictions.shape} for targets of shape {targets.shape}.")
    counts = np.ones(targets.shape, bool) if mask is None else mask
    y, error = targets[counts].astype(np.float64), (predictions - targets)[counts].astype(np.float64)
    mse, spread = float(np.mean(error**2)), float(np.mean((y - y.mean()) ** 2))
    return {"mse": mse, "mae": float(np.mean(np.abs(error))), "r2": 1 - mse / spread if spread > 0 else float("nan")}
