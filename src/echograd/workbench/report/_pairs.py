"""Whether two models differ on the same test cases: counts of agreement, and McNemar's test."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Cases that two models get right or wrong.

    Attributes:
        both: both are right.
        first: only the first one is right.
        second: only the second one is right.
        neither: both are wrong.
    """

    both: int
    first: int
    second: int
    neither: int

    @staticmethod
    def of(first: np.ndarray, second: np.ndarray) -> "Agreement":
        """Count cases; the arguments tell which cases each model gets right, shape (cases,)."""
        pairs = ((first & second), (first & ~second), (~first & second), (~first & ~second))
        return Agreement(*(int(np.count_nonzero(pair)) for pair in pairs))

    @property
    def p_value(self) -> float:
        """The exact two-sided p-value of McNemar's test (Q. McNemar, Psychometrika 12 (1947) 153)."""
        return sign_test(self.first, self.second)


def sign_test(first: int, second: int) -> float:
    """Return the probability of a split at least as uneven as this one, if both sides are equally likely."""
    n = first + second
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(first, second) + 1)) / 2**n)
