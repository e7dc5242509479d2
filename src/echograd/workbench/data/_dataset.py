"""A data set: training, validation and test split, which are never mixed."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal import _checks
from echograd._internal._checks import shown

from ._split import Split

Task = Literal["classification", "regression"]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its published splits.

    Attributes:
        name: the name that `load` takes.
        train: the cases to train on.
        validation: the cases to choose a model with, or None (see `with_validation`).
        test: the cases for the final score; use them for nothing else.
        task: "classification" (targets are class indices) or "regression" (real numbers).
        class_names: one name for each class index; empty for regression.
        channel_names: one name for each input channel.
        sample_rate: steps per second in Hz, or None if unknown.
        description: what the cases are and how they were split.
        source: origin of the data, and what to cite.
        licence: licence of the data, as stated by the source.
        origin: arguments of `read_dataset` that read the cases again, or None.

    Raises:
        ArgumentTypeError: a split is not a `Split`, or names are not a tuple of strings.
        ArgumentError: the splits disagree in length, channels, kind of target or with the names.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    task: Task
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    sample_rate: float | None
    description: str = dataclasses.field(repr=False)
    source: str = dataclasses.field(repr=False)
    licence: str = dataclasses.field(repr=False)
    origin: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        for side, split in (("train", self.train), ("test", self.test), ("validation", self.validation)):
            if side != "validation" or split is not None:
                _checks.instance("Dataset", side, split, Split, "a Split; `Split.from_series` makes one from arrays")
        for name, texts in (("class_names", self.class_names), ("channel_names", self.channel_names)):
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise ArgumentTypeError(f"Dataset: {name} must be a tuple of strings, not {shown(texts)}.")
        _checks.choice("Dataset", "task", self.task, ("classification", "regression"))
        if self.sample_rate is not None:
            _checks.constant(
                "Dataset", "sample_rate", self.sample_rate, _checks.positive, "it must be positive or None"
            )
        if (self.task == "regression") != (self.class_names == ()):
            raise ArgumentError(f"{self.name}: classification needs class_names, and regression must have none.")
        for side, split in self.splits.items():
            where = f"{self.name}, {side}"
            if split.inputs.shape[1:] != (self.length, self.inputs_dim):
                raise ArgumentError(
                    f"{where}: cases of shape {split.inputs.shape[1:]}, but those of train have shape "
                    f"{(self.length, self.inputs_dim)}."
                )
            if split.targets.dtype != (np.int32 if self.task == "classification" else np.float32):
                raise ArgumentError(f"{where}: {split.targets.dtype} targets do not fit {self.task}.")
            if split.targets.shape[1:] != self.train.targets.shape[1:]:
                raise ArgumentError(f"{where}: targets of shape {split.targets.shape[1:]} differ from those of train.")
            if self.task == "classification" and (
                split.targets.ndim != 1 or split.targets.min() < 0 or split.targets.max() >= self.classes
            ):
                raise ArgumentError(
                    f"{where}: class indices must have shape (cases,) and go from 0 to {self.classes - 1}; they go "
                    f"from {split.targets.min()} to {split.targets.max()}."
                )
        if len(self.channel_names) != self.inputs_dim:
            raise ArgumentError(f"{self.name}: {len(self.channel_names)} names for {self.inputs_dim} channels.")

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that are not None, by name."""
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in sides.items() if split is not None}

    @property
    def inputs_dim(self) -> int:
        """Number of input channels."""
        return self.train.inputs.shape[2]

    @property
    def length(self) -> int:
        """Number of steps of every case after padding."""
        return self.train.length

    @property
    def classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.class_names)

    def class_weights(self) -> Float[np.ndarray, " classes"]:
        """Return weights that give every class the same total weight in a mean over the training cases.

        Returns:
            cases / (classes × cases of the class), float32 of shape (classes,); their mean over the training cases
            is 1.

        Raises:
            ArgumentError: a class has no training case.
        """
        counts = self.train.class_counts(self.classes)
        if not counts.all():
            raise ArgumentError(
                f"{self.name}: class {self.class_names[int(np.argmin(counts))]!r} has no training case, so its weight "
                "would be infinite. Leave the class out, or train without class weights (--no-class-weights)."
            )
        return (len(self.train) / (self.classes * counts)).astype(np.float32)

    def standardised(self, *, targets: bool = False) -> "Dataset":
        """Scale every channel to mean 0 and standard deviation 1 on the training cases.

        Mean and standard deviation are those of the valid steps of the training split. They are applied to all splits,
        so no information leaks from the test cases. Padding stays 0. A channel that is constant in training is only
        centred.

        Args:
            targets: also scale regression targets, by mean and standard deviation of all elements of the training
                targets. (`target_scale` of the original data set returns these two numbers, to undo it.)

        Returns:
            The same data set with scaled inputs.

        Raises:
            ArgumentTypeError: `targets` is not a boolean.
            ArgumentError: targets are class indices and cannot be scaled.
        """
        targets = _checks.flag("standardised", "targets", targets)
        mean, std = self.input_scale()
        shift, scale = self.target_scale() if targets else (0.0, 1.0)

        def scaled(split: Split) -> Split:
            inputs = ((split.inputs - mean) / std).astype(np.float32)
            inputs[~split.mask] = 0.0
            new = ((split.targets - shift) / scale).astype(np.float32) if targets else split.targets
            return dataclasses.replace(split, inputs=inputs, targets=new)

        return self._with(**{side: scaled(split) for side, split in self.splits.items()})

    def input_scale(self) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"]]:
        """Return mean and standard deviation of every channel, float32, over the valid steps of the training cases.

        The standard deviation of a constant channel is 1.
        """
        return _mean_and_std(self.train.inputs[self.train.mask])

    def target_scale(self) -> tuple[float, float]:
        """Return mean and standard deviation of the training targets (regression only)."""
        if self.task != "regression":
            raise ArgumentError(f"{self.name}: class indices have no scale.")
        mean, std = _mean_and_std(self.train.targets.reshape(-1, 1))
        return float(mean[0]), float(std[0])

    def with_validation(self, fraction: float = 0.2, seed: int = 0) -> "Dataset":
        """Split validation cases off the training cases; the test cases stay.

        If the groups are known, whole groups are drawn, so no group is in both splits; of many draws the one is taken
        whose share of every class is closest to `fraction`. Otherwise the same fraction of the cases of every class is
        drawn. The same seed gives the same split.

        Args:
            fraction: share of the training cases to split off, between 0 and 1.
            seed: seed of the draw.

        Raises:
            ArgumentError: an argument is out of range, there is a validation split already, or a class would be left
                without training cases.
        """
        if self.validation is not None:
            raise ArgumentError(
                f"with_validation: {self.name} has a validation split of its own ({len(self.validation)} cases)."
            )
        fraction = _checks.constant(
            "with_validation", "fraction", fraction, lambda x: 0 < x < 1, "it must be between 0 and 1"
        )
        seed = _checks.integer("with_validation", "seed", seed, 0, 2**63 - 1)
        labels = self.train.targets if self.task == "classification" else None
        chosen = drawn(len(self.train), labels, self.train.groups, fraction, seed)
        if chosen is None:
            raise ArgumentError(
                f"{self.name}: no validation split of {fraction:g} of the cases leaves every class in training. Choose "
                "another fraction (--validation-fraction), or pass your own validation split."
            )
        everything = np.arange(len(self.train))
        return self._with(train=self.train.take(everything[~chosen]), validation=self.train.take(everything[chosen]))

    def _with(self, **splits: Split) -> "Dataset":
        return dataclasses.replace(self, **splits)  # pyright: ignore[reportArgumentType]


def _mean_and_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over the first axis; a deviation of 0 becomes 1."""
    mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    # The deviation of a constant channel is of the order of its rounding error. A deviation below the smallest normal
    # float32 is too small to divide by.
    constant = std <= np.maximum(1e-6 * np.abs(mean), np.finfo(np.float32).tiny)
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)


def drawn(
    cases: int, labels: np.ndarray | None, groups: np.ndarray | None, fraction: float, seed: int
) -> np.ndarray | None:
    """Choose a fraction of the cases: of every class, or whole groups. Return booleans, or None if none can be chosen.

    Args:
        cases: number of cases.
        labels: class indices; None draws all cases like a single class.
        groups: the source of every case, or None.
        fraction: share of the cases.
        seed: seed of the draw.
    """
    labels = np.zeros(cases, np.int32) if labels is None else labels
    rng = np.random.default_rng(seed)
    return _draw_stratified(labels, fraction, rng) if groups is None else _draw_groups(labels, groups, fraction, rng)


def _draw_stratified(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray | None:
    """Choose the same fraction of every class: at least one case, and not all cases."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        cases = rng.permutation(np.flatnonzero(labels == label))
        if len(cases) > 1:
            chosen[cases[: min(max(round(fraction * len(cases)), 1), len(cases) - 1)]] = True
    return chosen if chosen.any() else None


def _draw_groups(
    labels: np.ndarray, groups: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray | None:
    """Choose whole groups; of many draws take the one whose share of every class is closest to the fraction."""
    names, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (index, labels), 1)
    total = counts.sum(axis=0)
    present = total > 0
    best, best_error = None, np.inf
    for _ in range(500):
        order = rng.permutation(len(names))
        for count in range(1, len(names)):
            share = counts[order[:count]].sum(axis=0)[present] / total[present]
            error = np.abs(share - fraction).sum()
            if (share < 1).all() and error < best_error:
                best, best_error = order[:count], error
    return None if best is None else np.isin(index, best)
