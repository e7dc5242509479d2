"""Trained models with all that predictions for new cases need: scales, names of channels and classes."""

import contextlib
import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from echograd import ArgumentError

from .._paths import as_path
from ..data import Dataset, Split
from ..data._arrays import series_of
from ._config import Config
from ._files import explained, load_checkpoint, load_header, save_checkpoint
from ._learner import Model, Shapes, make_model, predict
from ._memory import check_memory
from ._predictions import Predictions, mean_of

_REMEDY = "Pass a file that `save` has written, or write it again."


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the model gets instead of inputs and targets: (x - mean) / std, and (y - shift) / scale.

    Attributes:
        mean: mean of every channel.
        std: standard deviation of every channel.
        target: shift and scale of regression targets.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    target: tuple[float, float] = (0.0, 1.0)

    @staticmethod
    def of(dataset: Dataset, config: Config) -> "Scale":
        """Return the scale that the config asks for; `dataset` has its validation cases split off."""
        channels = dataset.inputs_dim
        if not config.standardise:
            return Scale((0.0,) * channels, (1.0,) * channels)
        mean, std = dataset.input_scale()
        target = dataset.target_scale() if dataset.task == "regression" else (0.0, 1.0)
        return Scale(tuple(map(float, mean)), tuple(map(float, std)), target)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Scale":
        """Make a scale from the plain values of a JSON file."""
        shift, scale = values["target"]
        return Scale(tuple(map(float, values["mean"])), tuple(map(float, values["std"])), (float(shift), float(scale)))


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """One trained model in inference mode, with the settings and scales it was trained with."""

    config: Config
    shapes: Shapes
    scale: Scale
    model: Model
    state: eqx.nn.State

    def outputs(self, series: Sequence[Float[np.ndarray, "_ channels"]]) -> np.ndarray:
        """Return logits, or predictions in units of the targets, for cases of shape (steps, channels)."""
        shapes, config = self.shapes, self.config
        length = max(shapes.length, *map(len, series))
        if config.model == "hopfield" and length > shapes.length:
            raise ArgumentError(
                f"predict: a case has {length} steps, but a Hopfield network takes {shapes.length} steps, those of its "
                "training cases. Cut the case."
            )
        length += -length % max(shapes.every, 1)
        mean, std = np.array(self.scale.mean, np.float32), np.array(self.scale.std, np.float32)
        split = Split.from_series(
            [(case - mean) / std for case in series], np.zeros(len(series), np.int32), length=length
        )
        # The size of a batch is a power of two, so that few programs are compiled.
        size = min(config.batch_size, 1 << (len(series) - 1).bit_length())
        with precision(config):
            outputs = predict(self.model, self.state, split, size, multiple=size)
        if shapes.task == "regression":
            shift, scale = self.scale.target
            outputs = shift + scale * outputs
        if shapes.every:
            outputs = np.where(split.mask[:, shapes.every - 1 :: shapes.every, None], outputs, np.nan)
        return outputs


class Predictor:
    """Trained models that predict new cases, without the data set. `Run.predictor` and `fit_seeds` give one.

    Several models are an ensemble: the prediction is the mean of their probabilities, or of their predicted targets.

    Attributes:
        class_names: one name for each class; empty for regression.
        channel_names: one name for each input channel.
        members: the trained models.

    Example:
        ```python
        predictor = Run.open("runs/ecg").predictor
        predictor.save("ecg.eqx")
        Predictor.load("ecg.eqx").predict(X).labels  # X of shape (cases, channels, steps)
        ```
    """

    def __init__(self, members: Sequence[Trained], class_names: Sequence[str], channel_names: Sequence[str]) -> None:
        self.members, self.class_names, self.channel_names = tuple(members), tuple(class_names), tuple(channel_names)

    def predict(self, cases: Any) -> Predictions:
        """Predict new cases.

        Args:
            cases: an array of shape (cases, channels, steps), or (cases, steps) for one channel; or a list of arrays
                of shape (channels, steps) with any numbers of steps. In the units of the training data.

        Returns:
            The predictions. If the targets are times series, those after the end of a case are NaN.

        Raises:
            ArgumentTypeError: the cases are not real numbers.
            ArgumentError: they have another shape or number of channels, or a value is missing.
        """
        return self.predict_series(self.checked(cases))

    def checked(self, cases: Any) -> tuple[np.ndarray, ...]:
        """Return cases as arrays of shape (steps, channels), or raise."""
        series = series_of("predict", "cases", cases)
        here, wanted = series[0].shape[1], len(self.channel_names)
        if here != wanted:
            turned = all(len(case) == wanted for case in series)
            hint = " They may be (cases, steps, channels): pass X.transpose(0, 2, 1)." if turned else ""
            raise ArgumentError(
                f"predict: the cases have {here} channels, but the model was trained on {wanted} "
                f"({', '.join(self.channel_names)[:200]}). Pass an array of shape (cases, {wanted}, steps).{hint}"
            )
        return series

    def predict_series(self, series: Sequence[Float[np.ndarray, "_ channels"]]) -> Predictions:
        """Predict cases of shape (steps, channels) that have been checked."""
        return mean_of([Predictions(member.outputs(series), self.class_names) for member in self.members])

    def save(self, path: Any, about: Mapping[str, Any] | None = None) -> None:
        """Write the models into one file: a line of JSON, then arrays.

        Args:
            path: the file.
            about: plain values to keep in the file.

        Raises:
            OSError: the file cannot be written.
        """
        members = [
            {
                "config": member.config.to_dict(),
                "shapes": dataclasses.asdict(member.shapes),
                "scale": dataclasses.asdict(member.scale),
            }
            for member in self.members
        ]
        names = {"classes": list(self.class_names), "channels": list(self.channel_names)}
        header = {"predictor": members, **names, "about": dict(about or {})}
        trees = [(member.model, member.state) for member in self.members]
        save_checkpoint(as_path("save", "path", path), secrets.token_hex(8), header, trees)

    @staticmethod
    def load(path: Any) -> "Predictor":
        """Read a file that `save` has written. Nothing in the file is executed.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: the file is damaged, or another file.
        """
        return load_predictor(path)[0]


def load_predictor(path: Any) -> tuple[Predictor, dict[str, Any]]:
    """Return the predictor in a file, and the plain values that were saved with it."""
    path = as_path("load", "path", path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file. {_REMEDY}")
    said = {"what": "a saved model", "remedy": _REMEDY}
    header = load_header(path, None, **said)
    with explained(path, **said):
        parts = [_part(values) for values in header["predictor"]]
        class_names, channel_names, about = header["classes"], header["channels"], dict(header["about"])
    _, loaded = load_checkpoint(path, None, [(model, state) for *_, model, state in parts], **said)
    members = [
        Trained(config, shapes, scale, eqx.nn.inference_mode(model), state)
        for (config, shapes, scale, *_), (model, state) in zip(parts, loaded, strict=True)
    ]
    return Predictor(members, class_names, channel_names), about


def _part(values: Mapping[str, Any]) -> tuple[Config, Shapes, Scale, Model, eqx.nn.State]:
    """Return a model that was saved, with its initial parameters."""
    config, shapes = Config.from_dict(values["config"]), Shapes(**values["shapes"])
    with precision(config):
        check_memory(eqx.filter_eval_shape(make_model, config, shapes)[0])
        return config, shapes, Scale.from_dict(values["scale"]), *make_model(config, shapes)


def precision(config: Config) -> contextlib.AbstractContextManager:
    """Return the context in which JAX computes in the precision of the config."""
    return jax.enable_x64(config.precision == "float64")
