"""What a trained model says about cases."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from echograd import ArgumentError


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The outputs of a trained model for some cases.

    Attributes:
        outputs: logits of shape (cases, classes); or predicted targets in their own units, shape (cases, outputs) or
            (cases, times, outputs).
        class_names: one name for each class; empty for regression.

    Example:
        ```python
        found = run.predict(X)
        found.labels, found.probabilities
        ```
    """

    outputs: Float[np.ndarray, "cases ..."]
    class_names: tuple[str, ...]

    @property
    def probabilities(self) -> Float[np.ndarray, "cases classes"]:
        """Probabilities of the classes, float64 of shape (cases, classes); the softmax of the logits.

        Raises:
            ArgumentError: the model is a regression.
        """
        self._require_classes("probabilities")
        shifted = np.exp(self.outputs.astype(np.float64) - self.outputs.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    @property
    def labels(self) -> Shaped[np.ndarray, " cases"]:
        """The name of the most probable class of every case.

        Raises:
            ArgumentError: the model is a regression.
        """
        self._require_classes("labels")
        return np.array(self.class_names)[self.outputs.argmax(1)]

    def _require_classes(self, what: str) -> None:
        if not self.class_names:
            raise ArgumentError(
                f"Predictions: a regression has no {what}; use outputs, which are in units of the targets."
            )

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        what = f"classes {', '.join(self.class_names)}" if self.class_names else "regression"
        return f"Predictions({len(self)} cases, {what})"[:200]


def mean_of(found: Sequence[Predictions]) -> Predictions:
    """Return the mean of several models: of their probabilities, or of their predicted targets."""
    first = found[0]
    if len(found) == 1:
        return first
    if not first.class_names:
        return Predictions(np.mean([one.outputs for one in found], axis=0), ())
    mean = np.mean([one.probabilities for one in found], axis=0)
    return Predictions(np.log(np.maximum(mean, np.finfo(np.float64).tiny)), first.class_names)
