"""What a training run is made of, as plain values that go into a file beside the results."""

import dataclasses
import difflib
import math
import reprlib
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from echograd import EP, ArgumentError, ArgumentTypeError, Backprop, Echo, Implicit, Infinitesimal, OneSided, Symmetric
from echograd.gradients import AbstractGradient
from echograd.nudge import AbstractNudge
from echograd.statics import AbstractStaticGradient

_T = TypeVar("_T")
# What the `config.json` of a run tells about it instead of setting it up.
ABOUT = ("run", "versions", "data", "checksum")
# Counts are kept as 32-bit integers in a compiled program.
_MOST = 2**31 - 1


def _require(holds: bool, name: str, value: Any, remedy: str) -> None:
    if not holds:
        raise ArgumentError(f"{name}={_shown(value)}: {remedy}.")


def _shown(value: Any) -> str:
    """Return a value as it is quoted in a message."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = 80
    return short.repr(value)


def _check_types(settings: Any) -> None:
    """Put every value of a dataclass into the type that its annotation tells, or raise."""
    for name, hint in typing.get_type_hints(type(settings)).items():
        object.__setattr__(settings, name, _converted(hint, getattr(settings, name), name))


def _converted(hint: Any, value: Any, name: str) -> Any:
    """Return a value of the type that the hint tells, or raise."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, np.generic):
        value = value.item()
    if origin is Literal:
        _require(isinstance(value, str) and value in arguments, name, value, f"choose one of {_listed(arguments)}")
        return value
    if origin is types.UnionType:
        return None if value is None else _converted(arguments[0], value, name)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise ArgumentTypeError(f"{name}={_shown(value)}: {len(arguments)} values are needed.")
        return tuple(_converted(kind, item, name) for kind, item in zip(arguments, value, strict=True))
    if hint is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ArgumentTypeError(f"{name}={_shown(value)}: a number is needed.")
        _require(abs(value) <= sys.float_info.max, name, value, "a finite number is needed")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        wanted = {int: "a whole number", bool: "True or False", str: "a text"}.get(hint, f"{hint.__name__}(...)")
        raise ArgumentTypeError(f"{name}={_shown(value)}: {wanted} is needed.")
    return value


def _listed(choices: Iterable[Any]) -> str:
    return ", ".join(map(repr, choices))


@dataclasses.dataclass(frozen=True)
class Network:
    """Sizes and kinds of the layers of an `HSSM`; of a Hopfield network `units` and `blocks`, its hidden layers.

    Attributes:
        hidden: width of the residual stream.
        units: oscillators in a block.
        blocks: number of blocks.
        complex: complex read-in and read-out of the oscillators.
        norm: normalisation in front of the oscillators, over features ("layer") or batch and time ("batch").
        dropout: probability of dropping a feature in training.
        angles: bounds of the initial rotation angles per step, between 0 and pi; None: those of the kind of unit.
    """

    hidden: int = 32
    units: int = 32
    blocks: int = 2
    complex: bool = True
    norm: Literal["layer", "batch"] = "layer"
    dropout: float = 0.1
    angles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("hidden", "units"):
            _require(1 <= getattr(self, name) <= _MOST, name, getattr(self, name), "a size is at least 1, below 2³¹")
        _require(1 <= self.blocks <= 10_000, "blocks", self.blocks, "from 1 to 10,000 blocks are compiled in a while")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "a probability is at least 0 and below 1")
        low, high = self.angles or (0.1, 0.2)
        _require(
            0 < low < high < math.pi,
            "angles",
            self.angles,
            "two angles between 0 and pi, the smaller one first",
        )


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """AdamW, its schedule, and the clipping of gradients.

    Attributes:
        learning_rate: the highest rate of the schedule.
        schedule: after the warm-up, fall to 0 along a half cosine ("cosine") or stay ("constant").
        warmup: share of all steps in which the rate rises from 0.
        weight_decay: decay of weight matrices; constants of oscillators, biases and norms do not decay.
        clip: the largest norm a gradient may have before it is scaled down, or None.
    """

    learning_rate: float = 1e-2
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        _check_types(self)
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "it must be positive")
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "it is a share of the steps, at least 0 and below 1")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "it must be at least 0")
        _require(self.clip is None or self.clip > 0, "clip", self.clip, "it must be positive, or None")


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run: the same config, data and machine give the same numbers, bit for bit.

    Attributes:
        dataset: name of the data set.
        model: kind of the oscillators of an `HSSM`; or "hopfield", a network that settles, for classes only, which
            takes a case as one flat vector.
        gradient: how the oscillators are differentiated; of a Hopfield network "echo" is equilibrium propagation.
        nudge: how an echo is nudged; only "infinitesimal" is exact.
        beta: strength of a finite nudge. `None` scales it to the cotangents; for a Hopfield network it is 0.4 per case.
        network: sizes and kinds of the layers.
        optimiser: AdamW, its schedule, and the clipping of gradients.
        epochs: passes through the training cases.
        batch_size: cases in a batch.
        patience: epochs without a better validation score until training stops early; None never stops.
        monitor: validation metric that the best model is chosen by; "auto" is balanced accuracy for
            classification and the loss for regression.
        class_weights: make every class count the same in the loss, however many cases it has.
        standardise: scale channels (and regression targets) by mean and deviation of the training cases.
        validation_fraction: share of the training cases to validate with, where a set has no validation cases.
        seed: of the initial weights, the order of the cases, dropout and the validation cases.
        precision: of all numbers in training.

    Raises:
        TypeError: a value is of the wrong type. NumPy's numbers are taken as Python's.
        ValueError: a value is out of its range.
    """

    dataset: str
    model: Literal["linear", "nonlinear", "hopfield"] = "linear"
    gradient: Literal["echo", "backprop"] = "echo"
    nudge: Literal["infinitesimal", "symmetric", "one-sided"] = "infinitesimal"
    beta: float | None = None
    network: Network = Network()
    optimiser: Optimiser = Optimiser()
    epochs: int = 15
    batch_size: int = 32
    patience: int | None = None
    monitor: Literal["auto", "loss", "accuracy", "balanced_accuracy", "f1", "mse", "mae", "r2"] = "auto"
    class_weights: bool = True
    standardise: bool = True
    validation_fraction: float = 0.2
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        _check_types(self)
        _require(self.dataset != "", "dataset", self.dataset, "name a data set; `echograd datasets` lists them")
        _require(1 <= self.epochs <= _MOST, "epochs", self.epochs, "train for at least one epoch, and fewer than 2³¹")
        _require(
            1 <= self.batch_size <= _MOST, "batch_size", self.batch_size, "a batch has at least one case, below 2³¹"
        )
        _require(self.patience is None or self.patience >= 1, "patience", self.patience, "at least 1, or None")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "it must not be negative, and be below 2⁶³")
        fraction = self.validation_fraction
        _require(0 < fraction < 1, "validation_fraction", fraction, "a share of the cases is between 0 and 1")
        _require(self.beta != 0, "beta", self.beta, "a nudge of strength 0 tells nothing; None chooses a strength")
        _require(
            self.beta is None or self.nudge != "infinitesimal", "beta", self.beta, "an infinitesimal nudge has no size"
        )
        _require(
            self.nudge == "infinitesimal" or self.gradient == "echo", "nudge", self.nudge, "only an echo is nudged"
        )
        _require(
            self.model != "hopfield" or self.gradient != "echo" or self.nudge != "infinitesimal",
            "nudge",
            self.nudge,
            "clipped units at a bound do not respond to an infinitesimal nudge, so a Hopfield network hardly learns by "
            "it; choose 'symmetric' (--nudge symmetric)",
        )

    def static_gradient_object(self) -> AbstractStaticGradient:
        """Return the gradient that a Hopfield network gets."""
        if self.gradient == "backprop":
            return Implicit()
        # The loss is a mean over cases, and the strength is meant for one.
        beta = self.batch_size * (0.4 if self.beta is None else self.beta)
        return EP(OneSided(beta) if self.nudge == "one-sided" else Symmetric(beta))

    def gradient_object(self) -> AbstractGradient:
        """Return the gradient that the units of the model get."""
        if self.gradient == "backprop":
            return Backprop()
        beta = "auto" if self.beta is None else self.beta
        nudges: dict[str, AbstractNudge] = {
            "infinitesimal": Infinitesimal(),
            "symmetric": Symmetric(beta),
            "one-sided": OneSided(beta),
        }
        return Echo(nudges[self.nudge])

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values, for a JSON file."""
        return _plain(dataclasses.asdict(self))

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Config":
        """Make a config from nested dictionaries of plain values.

        Args:
            values: as `to_dict` returns them, or a run's `config.json`; what is left out has its default.

        Raises:
            ValueError: a key is unknown, or a value has the wrong type.
        """
        if not isinstance(values, Mapping):
            raise ArgumentError(f"settings are a mapping from names to values, and {_shown(values)} is not.")
        try:
            return _from_dict(Config, {key: value for key, value in values.items() if key not in ABOUT}, "")
        except TypeError as error:
            raise ArgumentError(str(error)) from error


def _plain(value: Any) -> Any:
    """Return the value as JSON gives it back: tuples are lists there."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def _from_dict(cls: type[_T], values: Mapping[str, Any], path: str) -> _T:
    hints = typing.get_type_hints(cls)
    _refuse_unknown(values, hints, path)
    made = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ArgumentError(f"the setting {path + key!r} is a group of settings, not {_shown(value)}.")
            value = _from_dict(typing.cast(type, hints[key]), value, path + key + ".")
        made[key] = value
    missing = [
        field.name
        for field in dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
        if field.default is dataclasses.MISSING and field.name not in made
    ]
    if missing:
        raise ArgumentError(f"the setting {path + missing[0]!r} is missing, and it has no default.")
    return cls(**made)


def _refuse_unknown(names: Iterable[Any], known: Iterable[str], path: str = "") -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {path + close[0]!r}?" if close else f" Known here: {', '.join(known)}."
            raise ArgumentError(f"there is no setting {_shown(f'{path}{name}')}.{hint}")


def ecg_recipe(**changes: Any) -> Config:
    """Return the config that learns the bundled ECG rhythms in about half a minute on two cores.

    The inputs are beat envelopes (see `echograd.data.slope_envelope`). The defaults of `Config`, which it has, were
    chosen by cross-validation over the training and validation patients of this set; its test patients had no part in
    that.

    Args:
        changes: fields of `Config` to have other values.

    Raises:
        ValueError: there is no such field, or a value is out of its range.

    Example:
        ```python
        run = fit(ecg_recipe(seed=1), out="runs/ecg")
        ```
    """
    _refuse_unknown(changes, typing.get_type_hints(Config))
    return dataclasses.replace(Config("ecg-rhythm-envelope"), **changes)
