"""How well scores rank the cases of a class above all others: curves over the threshold, and their areas."""

import dataclasses

import numpy as np

from ._examples import log_odds


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The cases of one class against all others, for every threshold of the score.

    A threshold lies between two different scores, so cases of equal score are taken together.

    Attributes:
        recall: share of the cases of the class at or above the threshold, from 0 to 1 as the threshold falls.
        false_alarms: share of the other cases at or above the threshold.
        precision: share of the class among all cases at or above the threshold; 1 above the highest score.
        share: share of the class among all cases, the precision of a score that tells nothing.
    """

    recall: np.ndarray
    false_alarms: np.ndarray
    precision: np.ndarray
    share: float

    @property
    def roc_area(self) -> float:
        """The area below recall over false alarms.

        It is the probability that a case of the class has a higher score than another case; equal scores count half.
        """
        return float(np.sum(np.diff(self.false_alarms) * (self.recall[1:] + self.recall[:-1]) / 2))

    @property
    def average_precision(self) -> float:
        """The area below precision over recall, as a sum of steps."""
        return float(np.sum(np.diff(self.recall) * self.precision[1:]))


def ranking(scores: np.ndarray, positive: np.ndarray) -> Ranking | None:
    """Return the ranking of a class; None if no case, or every case, is of that class.

    Args:
        scores: score of every case, shape (cases,); cases of the class should have high ones.
        positive: whether a case is of the class, shape (cases,).
    """
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.concatenate([[0], np.cumsum(positive[order])[ends]])
    above = np.concatenate([[0], ends + 1])
    precision = np.concatenate([[1.0], hits[1:] / above[1:]])
    return Ranking(hits / count, (above - hits) / others, precision, count / len(scores))


def rankings(logits: np.ndarray, targets: np.ndarray) -> list[Ranking | None]:
    """Return the ranking of every class by its log-odds, which order the cases as its probability does."""
    odds = log_odds(logits)
    return [ranking(odds[:, label], targets == label) for label in range(logits.shape[1])]
