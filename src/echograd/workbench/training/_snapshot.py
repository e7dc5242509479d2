"""The state of a training run between two steps, and the checkpoints that hold it."""

import dataclasses
import pathlib
from typing import Any

from ..data import DataError
from ._files import load_checkpoint
from ._learner import Learner
from ._run import BEST, LAST


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The state of a run between two steps. It is immutable, so an interrupt never finds it half-changed.

    Attributes:
        learner: the arrays.
        epoch: number of finished epochs.
        batch: number of steps done in the current epoch.
        step: number of steps done in all.
        cost: summed cost of the current epoch so far.
        count: what to divide `cost` by for a mean.
        slope: summed gradient norms of the current epoch so far.
        confusion: confusion matrix of the current epoch so far.
        best_epoch: the epoch of the best model so far; 0 before the first.
        best_score: the score of that model; higher is better.
        best_loss: its loss on the validation cases.
        seconds: training time in all.
    """

    learner: Learner
    epoch: int = 0
    batch: int = 0
    step: int = 0
    cost: float = 0.0
    count: float = 0.0
    slope: float = 0.0
    confusion: tuple[tuple[int, ...], ...] = ()
    best_epoch: int = 0
    best_score: float | None = None
    best_loss: float | None = None
    seconds: float = 0.0

    def header(self) -> dict[str, Any]:
        """Return all fields except the arrays."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["learner"]
        return fields

    @staticmethod
    def read(path: pathlib.Path, run: str, like: Learner) -> "Snapshot":
        """Read a checkpoint of the run; `like` has the same structure, shapes and dtypes."""
        header, learner = load_checkpoint(path, run, like)
        try:
            header["confusion"] = tuple(map(tuple, header["confusion"]))
            return Snapshot(learner, **header)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path} is the best model of this run, not a checkpoint to resume from ({error}). Restore the file; "
                "or delete it and resume the run, which then trains from its beginning to the same numbers."
            ) from error


def read_best(folder: pathlib.Path, run: str, learner: Learner) -> tuple[dict[str, Any], Any]:
    """Return the header of the best model so far, and the model with its state."""
    if not (folder / BEST).is_file():
        raise FileNotFoundError(
            f"{folder / BEST} is gone; it holds the best model of the epochs before {LAST}. Restore it; or delete "
            f"{LAST} and resume the run, which then trains from its beginning to the same numbers."
        )
    return load_checkpoint(folder / BEST, run, (learner.model, learner.state))
