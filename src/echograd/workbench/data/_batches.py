"""Batches that depend on (seed, epoch, index) and on nothing else."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from echograd import ArgumentError

from . import _checks
from ._dataset import Split


class Batch(NamedTuple):
    """Some cases of a split.

    Attributes:
        inputs: float32, shape (batch, length, channels).
        targets: the cases' targets, shape (batch, ...).
        mask: True at valid steps, shape (batch, length).
        weights: 1 for a case that counts, 0 for one that only fills up the batch, float32 of shape (batch,).
        cases: the cases' indices in the split, int32 of shape (batch,).
    """

    inputs: Float[np.ndarray, "batch length channels"]
    targets: Num[np.ndarray, "batch ..."]
    mask: Bool[np.ndarray, "batch length"]
    weights: Float[np.ndarray, " batch"]
    cases: Int[np.ndarray, " batch"]


class Batches:
    """The batches of a split, all of one shape.

    Every batch is a function of (seed, epoch, index): training that stops can go on at any batch and sees
    what it would have seen. With ``remainder="pad"`` every case comes exactly once an epoch; the last batch
    is filled up with cases of weight 0.

    Args:
        split: where the cases are from.
        size: cases in a batch. If the split has fewer, a batch is the whole split.
        seed: of the permutations.
        shuffle: draw a new order every epoch; False keeps the split's own order (for evaluation).
        balanced: draw every class equally often. An epoch still has as many cases as the split, but cases of
            small classes come several times and some of large classes not at all.
        remainder: ``"pad"`` fills the last batch up with cases of weight 0; ``"drop"`` leaves the incomplete
            batch out (other cases in every epoch).
        multiple: of what the number of cases in a batch must be a multiple, such as the number of devices that share
            it. A batch of the whole split is filled up to it.

    Raises:
        TypeError: an argument is of another type.
        ValueError: the size is not positive or no multiple of `multiple`, the split is smaller than one batch where
            the remainder is dropped, or balanced batches are asked for without shuffling or without classes.

    Example:
        ```python
        batches = Batches(dataset.train, 32, seed=0)
        for batch in batches.epoch(3, start=5):  # go on at batch 5 of epoch 3
            ...
        ```
    """

    def __init__(
        self,
        split: Split,
        size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        balanced: bool = False,
        remainder: Literal["pad", "drop"] = "pad",
        multiple: int = 1,
    ) -> None:
        _checks.instance("split", split, Split, "A data set has them as `train`, `validation` and `test`.")
        size, multiple = _checks.integer("size", size, 1), _checks.integer("multiple", multiple, 1)
        seed = _checks.integer("seed", seed, 0)
        shuffle, balanced = _checks.flag("shuffle", shuffle), _checks.flag("balanced", balanced)
        if size % multiple:
            raise ArgumentError(f"size must be a multiple of multiple={multiple}, not {size}.")
        if not isinstance(remainder, str) or remainder not in ("pad", "drop"):
            raise ArgumentError(f"remainder must be 'pad' or 'drop', not {_checks.shown(remainder)}.")
        if remainder == "drop" and len(split) < size:
            raise ArgumentError(f"the split has {len(split)} cases, so a batch of {size} would never be full.")
        if balanced and (not shuffle or split.targets.dtype != np.int32):
            raise ArgumentError("balanced batches need shuffle=True and class indices as targets.")
        size = min(size, -(-len(split) // multiple) * multiple)
        self.split, self.size, self.seed = split, size, seed
        self.shuffle, self.balanced, self.remainder = shuffle, balanced, remainder

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        cases = len(self.split)
        return cases // self.size if self.remainder == "drop" else -(-cases // self.size)

    def order(self, epoch: int) -> Int[np.ndarray, " cases"]:
        """Give the order in which an epoch takes the cases, as indices into the split.

        Args:
            epoch: number of the epoch, from 0.
        """
        epoch = _checks.integer("epoch", epoch, 0)
        cases = len(self.split)
        if not self.shuffle:
            return np.arange(cases)
        rng = np.random.default_rng([self.seed, epoch])
        if not self.balanced:
            return rng.permutation(cases)
        present = np.unique(self.split.targets)
        # Which class gets the odd case out changes from epoch to epoch.
        share = np.bincount(np.arange(cases) % len(present), minlength=len(present))
        drawn = []
        for label, count in zip(rng.permutation(present), share, strict=True):
            members = np.flatnonzero(self.split.targets == label)
            rounds = -(-int(count) // len(members))
            drawn.append(np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count])
        return rng.permutation(np.concatenate(drawn))

    def batch(self, epoch: int, index: int) -> Batch:
        """Give one batch.

        Args:
            epoch: number of the epoch, from 0.
            index: number of the batch in the epoch, from 0.

        Raises:
            IndexError: an epoch has no batch of this number.
        """
        index = _checks.integer("index", index)
        if not 0 <= index < len(self):
            raise IndexError(f"an epoch has {len(self)} batches; there is no batch {index}.")
        return self._take(self.order(epoch), index)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Go through the batches of an epoch, from batch number `start` on.

        Args:
            epoch: number of the epoch, from 0.
            start: number of the first batch, from 0 to the number of batches, where nothing is left.
        """
        order, start = self.order(epoch), _checks.integer("start", start, 0, len(self))
        return (self._take(order, index) for index in range(start, len(self)))

    def _take(self, order: np.ndarray, index: int) -> Batch:
        positions = np.arange(index * self.size, (index + 1) * self.size)
        # The cases that fill up are real ones, so that nothing they pass through can overflow or divide by 0.
        cases = order[positions % len(order)].astype(np.int32)
        weights = (positions < len(order)).astype(np.float32)
        split = self.split
        mask = np.arange(split.length) < split.lengths[cases][:, None]
        return Batch(split.inputs[cases], split.targets[cases], mask, weights, cases)
