"""The settings of a training run: plain values that are stored beside the results."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from echograd import (
    EP,
    ArgumentError,
    ArgumentTypeError,
    Backprop,
    Echo,
    Implicit,
    Infinitesimal,
    OneSided,
    Reciprocal,
    Symmetric,
)
from echograd._internal import _checks
from echograd._internal._checks import shown
from echograd.gradients import AbstractGradient
from echograd.nudge import AbstractNudge
from echograd.statics import AbstractStaticGradient

_T = TypeVar("_T")
# Keys of a run's `config.json` that describe the run and are not settings.
ABOUT = ("run", "versions", "data", "checksum")
# Counts are 32-bit integers in a compiled program.
_MOST = 2**31 - 1
# The least and the largest value of every integer; others, which subclasses add, are from 0 to `_MOST`. The number of
# blocks is limited because the time of compilation is proportional to it.
_BOUNDS = {
    "hidden": (1, _MOST),
    "units": (1, _MOST),
    "blocks": (1, 10_000),
    "epochs": (1, _MOST),
    "batch_size": (1, _MOST),
    "patience": (1, _MOST),
    "patch": (1, _MOST),
    "taps": (1, _MOST),
    "seed": (0, 2**63 - 1),
}


def _require(holds: bool, settings: Any, name: str, why: str) -> None:
    if not holds:
        raise ArgumentError(f"{type(settings).__name__}: {name}={shown(getattr(settings, name))}; {why}.")


def _convert(settings: Any) -> None:
    """Convert every value of a dataclass to the type of its annotation, or raise."""
    for name, hint in typing.get_type_hints(type(settings)).items():
        value = _converted(type(settings).__name__, name, getattr(settings, name), hint)
        object.__setattr__(settings, name, value)


def _converted(owner: str, name: str, value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _checks.choice(owner, name, value, arguments)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _converted(owner, name, value, arguments[0])
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise ArgumentTypeError(f"{owner}: {name}={shown(value)} must be {len(arguments)} numbers.")
        return tuple(_converted(owner, name, item, kind) for kind, item in zip(arguments, value, strict=True))
    if hint is float:
        return _checks.constant(owner, name, value, np.isfinite, "it must be a finite number")
    if hint is int:
        return _checks.integer(owner, name, value, *_BOUNDS.get(name, (0, _MOST)))
    if hint is bool:
        return _checks.flag(owner, name, value)
    return _checks.instance(owner, name, value, hint, "a str" if hint is str else f"{hint.__name__}(...)")


@dataclasses.dataclass(frozen=True)
class Network:
    """Sizes and kinds of the layers of an `HSSM`.

    A Hopfield network uses `units` and `blocks` only: it has `blocks` hidden layers of `units` units.

    Attributes:
        hidden: width of the residual stream.
        units: number of oscillators in a block.
        blocks: number of blocks.
        complex: complex read-in and read-out of the oscillators.
        norm: normalisation before the oscillators, over features ("layer") or over batch and time ("batch").
        dropout: probability of dropping a feature in training.
        pooling: what the read-out of a whole case sees of every feature: its mean over the steps; its mean, maximum
            and standard deviation; or its last value.
        patch: number of samples that make one step of the oscillators.
        taps: number of patches that the encoder reads for a step: the newest and those before it.
        bidirectional: run as many blocks again over the reversed sequence.
        angles: bounds of the initial rotation angles per step, in radians between 0 and pi; None uses the default of
            the unit.
        decays: bounds of the initial decay rates of damped oscillators per step; None takes memories from ten steps to
            the length of a case, log-uniform.

    Raises:
        ArgumentError: a value is out of its range.
        ArgumentTypeError: a value has the wrong type.
    """

    hidden: int = 32
    units: int = 32
    blocks: int = 2
    complex: bool = True
    norm: Literal["layer", "batch"] = "layer"
    dropout: float = 0.1
    pooling: Literal["mean", "mean_max_deviation", "last"] = "mean"
    patch: int = 1
    taps: int = 1
    bidirectional: bool = False
    angles: tuple[float, float] | None = None
    decays: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _convert(self)
        _require(0 <= self.dropout < 1, self, "dropout", "a probability is at least 0 and below 1")
        low, high = self.angles or (0.1, 0.2)
        _require(0 < low < high < math.pi, self, "angles", "pass two angles between 0 and pi, the smaller one first")
        low, high = self.decays or (0.1, 0.2)
        _require(0 < low < high, self, "decays", "pass two positive rates, the smaller one first")


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """AdamW, its schedule, and the clipping of gradients.

    Attributes:
        learning_rate: the highest rate of the schedule.
        oscillator_rate: rate of the oscillators' own constants (angles, decays, time steps), as a share of it.
        schedule: after the warm-up, the rate falls to 0 along a half cosine ("cosine") or stays ("constant").
        warmup: share of all steps in which the rate rises from 0.
        weight_decay: decay of weight matrices; constants of oscillators, biases and norms do not decay.
        clip: scale a gradient of larger norm down to this norm; None does not clip.

    Raises:
        ArgumentError: a value is out of its range.
        ArgumentTypeError: a value has the wrong type.
    """

    learning_rate: float = 1e-2
    oscillator_rate: float = 1.0
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        _convert(self)
        _require(self.learning_rate > 0, self, "learning_rate", "it must be positive")
        _require(self.oscillator_rate >= 0, self, "oscillator_rate", "it must be at least 0")
        _require(0 <= self.warmup < 1, self, "warmup", "it is a share of the steps, at least 0 and below 1")
        _require(self.weight_decay >= 0, self, "weight_decay", "it must be at least 0")
        _require(self.clip is None or self.clip > 0, self, "clip", "it must be positive, or None")


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of a training run. The same config, data and machine give the same numbers, bit for bit.

    Attributes:
        dataset: name of the data set.
        model: kind of the oscillators of an `HSSM`; or "hopfield", a classifier that relaxes to an equilibrium and
            takes every case as one flat vector.
        gradient: gradient method of the oscillators. "echo" of damped oscillators is `Reciprocal()`: the same machine,
            driven by the reversed errors. "echo" of a Hopfield network is equilibrium propagation.
        nudge: kind of the nudge of an echo; only "infinitesimal" is exact.
        beta: strength of a finite nudge. `None` scales it to the cotangents; for a Hopfield network it is 0.4 per case.
        network: sizes and kinds of the layers.
        optimiser: AdamW, its schedule, and the clipping of gradients.
        epochs: number of passes through the training cases.
        batch_size: number of cases in a batch.
        patience: training stops early after this many epochs without a better validation score; None never stops.
        monitor: validation metric that selects the best model; "auto" is balanced accuracy for classification and
            the loss for regression.
        class_weights: give every class the same total weight in the loss.
        crop: share of the steps of a case that a training step sees: a random window of every case, drawn anew every
            time; 1 takes whole cases.
        smoothing: share of the weight that the loss of a classification gives to all classes equally.
        standardise: scale channels (and regression targets) by mean and standard deviation of the training cases.
        validation_fraction: share of the training cases that become validation cases if the data set has none. With 0
            all cases are trained on, and the model of the last epoch is kept.
        seed: seed of the initial weights, the order of the cases, dropout and the choice of validation cases.
        precision: precision of all numbers in training.

    Raises:
        ArgumentError: a value is out of its range.
        ArgumentTypeError: a value has the wrong type. NumPy scalars are converted.
    """

    dataset: str
    model: Literal["linear", "nonlinear", "damped", "hopfield"] = "linear"
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
    crop: float = 1.0
    smoothing: float = 0.0
    standardise: bool = True
    validation_fraction: float = 0.2
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        _convert(self)
        finite = self.nudge != "infinitesimal"
        _require(self.dataset != "", self, "dataset", "name a data set; `echograd datasets` lists them")
        _require(0 <= self.validation_fraction < 1, self, "validation_fraction", "it must be at least 0 and below 1")
        _require(0 < self.crop <= 1, self, "crop", "it is a share of the steps, above 0 and at most 1")
        _require(0 <= self.smoothing < 1, self, "smoothing", "it is a share, at least 0 and below 1")
        _require(
            self.patience is None or self.validation_fraction > 0,
            self,
            "patience",
            "training cannot stop early without validation cases; leave patience out, or set validation_fraction",
        )
        _require(self.beta != 0, self, "beta", "a nudge of strength 0 gives no gradient; None chooses a strength")
        _require(self.beta is None or finite, self, "beta", "an infinitesimal nudge has no size; leave beta out")
        _require(not finite or self.gradient == "echo", self, "nudge", "only an echo has a nudge; leave nudge out")
        _require(
            self.model != "hopfield" or self.gradient != "echo" or finite,
            self,
            "nudge",
            "clipped units at a bound do not respond to an infinitesimal nudge, so a Hopfield network hardly learns "
            "from it; choose 'symmetric' (--nudge symmetric)",
        )
        _require(
            self.model != "damped" or not finite,
            self,
            "nudge",
            "damped oscillators are driven by the errors themselves, without a nudge; leave nudge out",
        )
        _require(
            self.model == "damped" or self.network.decays is None,
            self,
            "model",
            "only damped oscillators have decay rates; leave network.decays out, or choose 'damped' (--model damped)",
        )

    def static_gradient_object(self) -> AbstractStaticGradient:
        """Return the gradient of a Hopfield network."""
        if self.gradient == "backprop":
            return Implicit()
        # The loss is a mean over the cases of a batch; beta is the strength per case.
        beta = self.batch_size * (0.4 if self.beta is None else self.beta)
        return EP(OneSided(beta) if self.nudge == "one-sided" else Symmetric(beta))

    def gradient_object(self) -> AbstractGradient:
        """Return the gradient of the oscillators of an `HSSM`."""
        if self.gradient == "backprop":
            return Backprop()
        if self.model == "damped":
            return Reciprocal()
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
            values: a dictionary from `to_dict`, or the contents of a run's `config.json`. Missing settings have their
                defaults.

        Raises:
            ArgumentError: a key is unknown, or a value has the wrong type or is out of its range.
        """
        if not isinstance(values, Mapping):
            raise ArgumentError(f"Config.from_dict: {shown(values)} is not a mapping from names of settings to values.")
        try:
            return _from_dict(Config, {key: value for key, value in values.items() if key not in ABOUT}, "")
        except ArgumentTypeError as error:
            raise ArgumentError(str(error)) from error


def _plain(value: Any) -> Any:
    """Return the value with lists for tuples, as JSON stores it."""
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
                raise ArgumentError(f"the setting {path + key!r} is a group of settings, not {shown(value)}.")
            value = _from_dict(typing.cast(type, hints[key]), value, path + key + ".")
        made[key] = value
    missing = [
        field.name
        for field in dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
        if field.default is dataclasses.MISSING and field.name not in made
    ]
    if missing:
        raise ArgumentError(f"the setting {path + missing[0]!r} is missing; it has no default.")
    return cls(**made)


def _refuse_unknown(names: Iterable[Any], known: Iterable[str], path: str = "") -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {path + close[0]!r}?" if close else f" Known here: {', '.join(known)}."
            raise ArgumentError(f"there is no setting {shown(f'{path}{name}')}.{hint}")


def ecg_recipe(**changes: Any) -> Config:
    """Return the config that learns the bundled ECG rhythms in about half a minute on two cores.

    The inputs are beat envelopes (see `echograd.workbench.data.slope_envelope`). All other settings are the defaults of
    `Config`. They were chosen by cross-validation over the training and validation patients of this data set, without
    the test patients.

    Args:
        changes: fields of `Config` with new values.

    Raises:
        ArgumentError: there is no such field, or a value is out of its range.
        ArgumentTypeError: a value has the wrong type.

    Example:
        ```python
        run = fit(ecg_recipe(seed=1), out="runs/ecg")
        ```
    """
    _refuse_unknown(changes, typing.get_type_hints(Config))
    return dataclasses.replace(Config("ecg-rhythm-envelope"), **changes)
