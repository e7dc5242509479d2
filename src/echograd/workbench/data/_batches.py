"""Batches that are a function of (seed, epoch, index)."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from echograd import ArgumentError
from echograd._internal import _checks

from ._errors import CaseIndexError
from ._split import Split

_MOST = 2**63 - 1


def _integer(name: str, x: int, least: int = 0, most: int = _MOST) -> int:
    return _checks.integer("Batches", name, x, least, most)


class Batch(NamedTuple):
    """Some cases of a split.

    Attributes:
        inputs: float32, shape (batch, length, channels).
        targets: targets of the cases, shape (batch, ...).
        mask: True at valid steps, shape (batch, length).
        weights: 1 for a case that counts, 0 for a case that fills up the batch, float32 of shape (batch,).
        cases: indices of the cases in the split, int32 of shape (batch,).
    """

    inputs: Float[np.ndarray, "batch length channels"]
    targets: Num[np.ndarray, "batch ..."]
    mask: Bool[np.ndarray, "batch length"]
    weights: Float[np.ndarray, " batch"]
    cases: Int[np.ndarray, " batch"]


class Batches:
    """The batches of a split, all of one shape.

    Every batch is a function of (seed, epoch, index), so interrupted training can resume at any batch and gets the
    same batches. With ``remainder="pad"`` every case appears exactly once an epoch; the last batch is filled up with
    cases of weight 0.

    Args:
        split: the cases.
        size: number of cases in a batch. If the split has fewer cases, a batch is the whole split.
        seed: seed of the permutations.
        shuffle: draw a new order every epoch; False keeps the order of the split (for evaluation).
        balanced: draw every class equally often. An epoch still has as many cases as the split, but cases of
            small classes are repeated and some cases of large classes are missing.
        remainder: ``"pad"`` fills the last batch up with cases of weight 0; ``"drop"`` leaves out the incomplete
            batch (with other cases in every epoch).
        multiple: the number of cases in a batch must be a multiple of this, such as the number of devices that share
            a batch. A batch of the whole split is filled up to it.

    Raises:
        ArgumentTypeError: `split` is not a `Split`, or a flag is not a boolean.
        ArgumentError: a number is not an integer or out of range, `size` is not a multiple of `multiple`, the split is
            smaller than one batch with ``remainder="drop"``, or `balanced` is set without `shuffle` or classes.

    Example:
        ```python
        batches = Batches(dataset.train, 32, seed=0)
        for batch in batches.epoch(3, start=5):  # resume at batch 5 of epoch 3
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
        _checks.instance("Batches", "split", split, Split, "a Split, such as `train` of a Dataset")
        size, multiple, seed = _integer("size", size, 1), _integer("multiple", multiple, 1), _integer("seed", seed)
        shuffle, balanced = _checks.flag("Batches", "shuffle", shuffle), _checks.flag("Batches", "balanced", balanced)
        if size % multiple:
            raise ArgumentError(f"Batches: size={size} is not a multiple of multiple={multiple}.")
        _checks.choice("Batches", "remainder", remainder, ("pad", "drop"))
        if remainder == "drop" and len(split) < size:
            raise ArgumentError(
                f"Batches: the split has {len(split)} cases, so a batch of size={size} is never full. Lower size, or "
                "use remainder='pad'."
            )
        if balanced and (not shuffle or split.targets.dtype != np.int32):
            raise ArgumentError("Batches: balanced=True needs shuffle=True and class indices as targets.")
        size = min(size, -(-len(split) // multiple) * multiple)
        self.split, self.size, self.seed = split, size, seed
        self.shuffle, self.balanced, self.remainder = shuffle, balanced, remainder

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        cases = len(self.split)
        return cases // self.size if self.remainder == "drop" else -(-cases // self.size)

    def order(self, epoch: int) -> Int[np.ndarray, " cases"]:
        """Return the order of the cases in an epoch, as indices into the split.

        Args:
            epoch: number of the epoch, from 0.
        """
        epoch = _integer("epoch", epoch)
        cases = len(self.split)
        if not self.shuffle:
            return np.arange(cases)
        rng = np.random.default_rng([self.seed, epoch])
        if not self.balanced:
            return rng.permutation(cases)
        present = np.unique(self.split.targets)
        # If the number of classes does not divide the cases, random classes get one case more.
        share = np.bincount(np.arange(cases) % len(present), minlength=len(present))
        drawn = []
        for label, count in zip(rng.permutation(present), share, strict=True):
            members = np.flatnonzero(self.split.targets == label)
            rounds = -(-int(count) // len(members))
            drawn.append(np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count])
        return rng.permutation(np.concatenate(drawn))

    def batch(self, epoch: int, index: int) -> Batch:
        """Return one batch.

        Args:
            epoch: number of the epoch, from 0.
            index: number of the batch in the epoch, from 0.

        Raises:
            ArgumentError: a number is not an integer or out of range. (For `index` it is also an `IndexError`.)
        """
        index = _integer("index", index, -_MOST)
        if not 0 <= index < len(self):
            raise CaseIndexError(f"Batches: an epoch has {len(self)} batches; there is no batch {index}.")
        return self._take(self.order(epoch), index)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return an iterator over the batches of an epoch, from batch number `start` on.

        Args:
            epoch: number of the epoch, from 0.
            start: number of the first batch; the number of batches gives an empty iterator.
        """
        order, start = self.order(epoch), _integer("start", start, most=len(self))
        return (self._take(order, index) for index in range(start, len(self)))

    def _take(self, order: np.ndarray, index: int) -> Batch:
        positions = np.arange(index * self.size, (index + 1) * self.size)
        # The batch is filled up with real cases, so that no operation on them overflows or divides by 0.
        cases = order[positions % len(order)].astype(np.int32)
        weights = (positions < len(order)).astype(np.float32)
        split = self.split
        mask = np.arange(split.length) < split.lengths[cases][:, None]
        return Batch(split.inputs[cases], split.targets[cases], mask, weights, cases)
