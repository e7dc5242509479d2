"""A finished or interrupted run, read from its folder."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import typing
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from echograd import ArgumentError
from echograd._internal import _checks

from .._paths import as_path
from ..data import DataError, Dataset, Split, load, read_dataset
from ._config import Config
from ._files import load_checkpoint, load_header, read_json, read_lines, unseal
from ._learner import Model, Shapes, make_model, predict, whole_set
from ._metrics import classification_metrics, regression_metrics
from ._predictions import Predictions
from ._predictor import Predictor, Scale, Trained, precision

CONFIG, METRICS, RESULTS = "config.json", "metrics.jsonl", "results.json"
LAST, BEST = "last.eqx", "best.eqx"


class Run:
    """A training run, read from its folder. `fit` and `Run.open` return one. Files are read on first use.

    Attributes:
        folder: the folder of the run.
        id: random identity of the run. Every file in the folder carries it.
        config: the settings of the run.
        versions: versions of echograd and JAX, with dtype and device.

    Example:
        ```python
        run = Run.open("runs/ecg")
        run.results["test"]["balanced_accuracy"]
        logits = run.predict("test")  # (cases, classes)
        run.predict(X).labels  # new cases X of shape (cases, channels, steps)
        ```
    """

    def __init__(self, folder: pathlib.Path, config: Config, about: dict[str, Any], dataset: Dataset | None) -> None:
        self.folder, self.config = folder, config
        self.id: str = about["run"]
        self.versions: dict[str, str] = about["versions"]
        self._data: dict[str, Any] = about["data"]
        self._given = dataset

    @staticmethod
    def open(folder: str | os.PathLike, dataset: Dataset | None = None) -> "Run":
        """Open the folder of a run.

        Args:
            folder: the folder.
            dataset: the data set that was passed to `fit`; needed if it cannot be loaded by name.

        Raises:
            FileNotFoundError: the folder holds no run.
            ArgumentTypeError: `folder` is not a path, or `dataset` is not a `Dataset`.
            ArgumentError: the run was trained on another data set.
            DataError: the config of the run is damaged.
        """
        folder = as_path("Run.open", "folder", folder)
        check_is_dataset("Run.open", dataset)
        path = folder / CONFIG
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no training run: there is no {CONFIG} in it.")
        try:
            values = read_json(path)
            about = unseal(values, None) | {"run": values["run"]}
            run = Run(folder, Config.from_dict(values), about, dataset)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read: {error}. Restore the file, or begin another run. (To change settings, copy "
                "them into a new file and pass it as --config.)"
            ) from error
        if dataset is not None:
            check_dataset(dataset, about["data"], folder)
        return run

    def history(self) -> list[dict[str, Any]]:
        """Return one record for every epoch: `{"epoch", "step", "seconds", "train": {...}, "validation": {...}}`.

        Raises:
            DataError: the file was edited or truncated, or belongs to another run.
        """
        # Read the checkpoint first: a run that is still training adds lines.
        last = self.folder / LAST
        epochs = load_header(last, self.id)["epoch"] if last.is_file() else 0
        return read_lines(self.folder / METRICS, self.id, epochs)

    @property
    def results(self) -> dict[str, Any]:
        """The metrics of the best model.

        Raises:
            FileNotFoundError: training is not finished.
            DataError: the file was edited, or belongs to another run.
        """
        path = self.folder / RESULTS
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder} has no {RESULTS}: training is not finished. Resume it.")
        try:
            return unseal(read_json(path), self.id)
        except ValueError as error:
            raise DataError(
                f"{path} does not hold the results of this run: {error}. Delete the file and resume the run, which "
                "writes it again."
            ) from error

    @property
    def finished(self) -> bool:
        """Whether training is finished."""
        return (self.folder / RESULTS).is_file()

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data set in its own units, with the validation cases of this run.

        Raises:
            ArgumentError: it is not the data set that the run was trained on.
        """
        dataset = self._given
        if dataset is None:
            dataset = self._read() if self.origin else load(self.config.dataset)
            check_dataset(dataset, self._data, self.folder)
        return with_validation(dataset, self.config)

    @property
    def origin(self) -> dict[str, Any] | None:
        """The arguments of `read_dataset` for a data set from own files; None for a data set with a name."""
        return self._data.get("origin")

    def _read(self) -> Dataset:
        """Read the data set from the user's files again."""
        origin = self.origin
        assert origin is not None
        try:
            return read_dataset(**origin)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.folder} was trained on {origin['path']}, a path from the folder where training was started: "
                f"{error} Go to that folder, pass the file's new place (--data FILE), or open the run with "
                "Run.open(folder, read_dataset(...)). Predictions for new cases do not need it."
            ) from error

    @functools.cached_property
    def prepared(self) -> Dataset:
        """The data set as the model gets it: standardised, if the config says so."""
        return prepare(self.dataset, self.config)

    @property
    def shapes(self) -> Shapes:
        """The sizes of the data set that determine the model."""
        names = [field.name for field in dataclasses.fields(Shapes) if field.name in self._data]
        return Shapes(**{name: self._data[name] for name in names})

    @property
    def model(self) -> Model:
        """The best model, in inference mode."""
        return self._best[0]

    @property
    def state(self) -> eqx.nn.State:
        """The state of the best model's norms."""
        return self._best[1]

    @functools.cached_property
    def _best(self) -> tuple[Model, eqx.nn.State]:
        path = self.folder / BEST
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder} has no model yet: no epoch is finished. Resume the run.")
        with precision(self.config):
            header, (model, state) = load_checkpoint(path, self.id, make_model(self.config, self.shapes))
        if self.finished and header["epoch"] != self.results["best_epoch"]:
            raise DataError(
                f"{path} holds the model of epoch {header['epoch']}, but {RESULTS} is about the model of epoch "
                f"{self.results['best_epoch']}. Restore the file, or begin another run."
            )
        return eqx.nn.inference_mode(model), state

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The best model with its scales and names, for new cases; it does not need the data set of the run.

        Raises:
            DataError: the checkpoint is damaged.
        """
        if "scale" in self._data:
            scale, channels = Scale.from_dict(self._data["scale"]), self._data["channels"]
        else:  # a run of version 0.1.0
            scale, channels = Scale.of(self.dataset, self.config), self.dataset.channel_names
        return Predictor(
            [Trained(self.config, self.shapes, scale, self.model, self.state)], self._data["classes"], channels
        )

    @typing.overload
    def predict(self, cases: str = "test") -> Float[np.ndarray, "cases ..."]: ...
    @typing.overload
    def predict(self, cases: np.ndarray | Sequence[np.ndarray]) -> Predictions: ...

    def predict(self, cases: Any = "test") -> Any:
        """Return the best model's outputs for every case of a split, or its predictions for new cases.

        Args:
            cases: "train", "validation" or "test"; or new cases in the units of the training data: an array of shape
                (cases, channels, steps), or (cases, steps) for one channel, or a list of arrays of shape
                (channels, steps) with any numbers of steps. The run has the scales and names that new cases need, so
                they do not need the data set.

        Returns:
            For a split logits of shape (cases, classes), or predictions in the shape and the units of the targets.
            For new cases `Predictions`, with labels and probabilities.

        Raises:
            ArgumentTypeError: the cases are not real numbers.
            ArgumentError: there is no such split; the cases have another shape or number of channels, or a value is
                missing.
            DataError: the checkpoint is damaged.
        """
        if isinstance(cases, str):
            return self._outputs(self._split(cases))
        return self.predictor.predict(cases)

    def evaluate(self, split: str = "test") -> dict[str, Any]:
        """Return the best model's metrics on a split, as in `results`.

        Args:
            split: "train", "validation" or "test".

        Raises:
            ArgumentError: there is no such split.
            DataError: the checkpoint is damaged.
        """
        return score(self.prepared, self._split(split), self._outputs(self._split(split)), self.config, self.dataset)

    def _split(self, name: str) -> Split:
        splits = self.prepared.splits
        if name not in splits:
            raise ArgumentError(f"Run: there is no split {name!r}; choose one of {', '.join(splits)}.")
        return splits[name]

    def _outputs(self, split: Split) -> np.ndarray:
        size = whole_set(self.config, len(self.prepared.train)).batch_size
        with precision(self.config):
            outputs = predict(self.model, self.state, split, size)
        return in_units(outputs, split, self.dataset, self.config)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {'finished' if self.finished else 'not finished'})"


def check_is_dataset(owner: str, dataset: Any) -> None:
    """Raise unless `dataset` is a `Dataset` or None."""
    if dataset is not None:
        _checks.instance(owner, "dataset", dataset, Dataset, "a Dataset; pass None to load it by its name")


def with_validation(dataset: Dataset, config: Config) -> Dataset:
    """Return the data set with validation cases."""
    if dataset.validation is not None or config.validation_fraction == 0:
        return dataset
    return dataset.with_validation(config.validation_fraction, config.seed)


def prepare(dataset: Dataset, config: Config) -> Dataset:
    """Return the data set as the model gets it."""
    return dataset.standardised(targets=dataset.task == "regression") if config.standardise else dataset


def in_units(outputs: np.ndarray, split: Split, dataset: Dataset, config: Config) -> np.ndarray:
    """Return logits unchanged, and predictions in the shape and units of the targets."""
    if dataset.task == "classification":
        return outputs
    shift, scale = dataset.target_scale() if config.standardise else (0.0, 1.0)
    return shift + scale * outputs.reshape(split.targets.shape)


def class_weights(dataset: Dataset, config: Config) -> np.ndarray:
    """Return the weights of the classes in the loss."""
    weighted = dataset.task == "classification" and config.class_weights
    return dataset.class_weights() if weighted else np.ones(max(dataset.classes, 1), np.float32)


def score(prepared: Dataset, split: Split, outputs: np.ndarray, config: Config, dataset: Dataset) -> dict[str, Any]:
    """Return the metrics of outputs that are in units of the targets."""
    if prepared.task == "classification":
        return classification_metrics(outputs, split.targets, class_weights(prepared, config))
    shift, scale = dataset.target_scale() if config.standardise else (0.0, 1.0)
    every = Shapes.of(prepared).every
    mask = None
    if every:
        mask = np.broadcast_to(split.mask[:, every - 1 :: every, None], split.targets.shape)
    metrics = regression_metrics(outputs, shift + scale * split.targets, mask)
    return {"loss": metrics["mse"] / scale**2, **metrics}


def baseline(prepared: Dataset, split: Split, config: Config, dataset: Dataset) -> dict[str, Any]:
    """Return the metrics of a constant prediction: the class frequencies, or the mean, of the training targets."""
    if prepared.task == "classification":
        counts = prepared.train.class_counts(prepared.classes)
        logits = np.log(np.maximum(counts, 0.5) / counts.sum())
        outputs = np.broadcast_to(logits, (len(split), prepared.classes))
    else:
        shift, _ = dataset.target_scale()
        outputs = np.full(split.targets.shape, shift)
    return score(prepared, split, outputs, config, dataset)


def fingerprint(dataset: Dataset) -> str:
    """Return a digest of all cases of a data set."""
    digest = hashlib.sha256()
    for name, split in dataset.splits.items():
        digest.update(f"{name} {split.inputs.shape} {split.targets.shape}".encode())
        for column in (split.inputs, split.targets, split.lengths):
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def check_dataset(dataset: Dataset, about: dict[str, Any], folder: pathlib.Path) -> None:
    """Raise if the run in the folder was trained on another data set."""
    if fingerprint(dataset) != about["fingerprint"]:
        raise ArgumentError(
            f"the data set {dataset.name!r} has other cases than {about['name']!r}, on which {folder} was trained. "
            "Open the run with that data set, or train another run on this one."
        )
