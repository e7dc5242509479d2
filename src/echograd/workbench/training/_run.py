"""A finished or broken-off run, read from its folder."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from echograd import ArgumentError, ArgumentTypeError

from ..data import Dataset, Split, load
from ._config import Config
from ._files import load_checkpoint, load_header, read_json, read_lines, unseal
from ._learner import Model, Shapes, make_model, predict, whole_set
from ._metrics import classification_metrics, regression_metrics

CONFIG, METRICS, RESULTS = "config.json", "metrics.jsonl", "results.json"
LAST, BEST = "last.eqx", "best.eqx"


class Run:
    """A training run, read from its folder.

    Made by `fit` and by `Run.open`. Nothing is read before it is asked for.

    Attributes:
        folder: where it is.
        id: identity of the run, drawn at random when it began. Every file in the folder carries it.
        config: what it was made with.
        versions: of echograd and JAX, with dtype and device.

    Example:
        ```python
        run = Run.open("runs/ecg")
        run.results["test"]["balanced_accuracy"]
        logits = run.predict("test")  # (cases, classes)
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
            dataset: the set that it was trained on, as it was given to `fit`, if it cannot be loaded by name.

        Raises:
            FileNotFoundError: there is no run.
            TypeError: `folder` is not a path, or `dataset` not a set.
            ValueError: its config cannot be read, or the set is another one.
        """
        folder = as_path("Run.open: the folder", folder)
        check_kind("Run.open", dataset)
        path = folder / CONFIG
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no training run: there is no {CONFIG} in it.")
        try:
            values = read_json(path)
            about = unseal(values, None) | {"run": values["run"]}
            run = Run(folder, Config.from_dict(values), about, dataset)
        except (ValueError, KeyError, TypeError) as error:
            raise ArgumentError(
                f"{path} cannot be read: {error}. Restore the file, or begin another run; to begin it with settings "
                "that you edit, copy them into a file of their own (--config)."
            ) from error
        if dataset is not None:
            check_dataset(dataset, about["data"], folder)
        return run

    def history(self) -> list[dict[str, Any]]:
        """Return one record for every epoch: `{"epoch", "step", "seconds", "train": {...}, "validation": {...}}`.

        Raises:
            ValueError: the file was changed or cut short, or is of another run.
        """
        # The checkpoint first: a run that goes on meanwhile adds lines.
        last = self.folder / LAST
        epochs = load_header(last, self.id)["epoch"] if last.is_file() else 0
        return read_lines(self.folder / METRICS, self.id, epochs)

    @property
    def results(self) -> dict[str, Any]:
        """The metrics of the best model.

        Raises:
            FileNotFoundError: training has not come to its end.
            ValueError: the file was changed, or is of another run.
        """
        path = self.folder / RESULTS
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder} has no {RESULTS}: training has not come to its end. Resume it.")
        try:
            return unseal(read_json(path), self.id)
        except ValueError as error:
            raise ArgumentError(
                f"{path} does not hold the results of this run: {error}. Delete the file and resume the run, which "
                "writes it again."
            ) from error

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return (self.folder / RESULTS).is_file()

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The set in its own units, with the validation cases of this run.

        Raises:
            ValueError: it is not what the run was trained on.
        """
        dataset = self._given
        if dataset is None:
            dataset = load(self.config.dataset)
            check_dataset(dataset, self._data, self.folder)
        return with_validation(dataset, self.config)

    @functools.cached_property
    def prepared(self) -> Dataset:
        """The set as the model sees it: scaled, if the config says so."""
        return prepare(self.dataset, self.config)

    @property
    def shapes(self) -> Shapes:
        """What the model knows of the set."""
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
            raise FileNotFoundError(f"{self.folder} has no model yet: no epoch has come to its end. Resume it.")
        with precision(self.config):
            header, (model, state) = load_checkpoint(path, self.id, make_model(self.config, self.shapes))
        if self.finished and header["epoch"] != self.results["best_epoch"]:
            raise ArgumentError(
                f"{path} holds the model of epoch {header['epoch']}, and {RESULTS} is about that of epoch "
                f"{self.results['best_epoch']}. Restore the file, or begin another run."
            )
        return eqx.nn.inference_mode(model), state

    def predict(self, split: str = "test") -> Float[np.ndarray, "cases ..."]:
        """Return the best model's outputs for every case of a split.

        Args:
            split: "train", "validation" or "test".

        Returns:
            Logits of shape (cases, classes), or predictions in the shape and the units of the targets.

        Raises:
            ValueError: there is no such split.
        """
        return self._outputs(self._split(split))

    def evaluate(self, split: str = "test") -> dict[str, Any]:
        """Return the best model's metrics on a split, as in `results`.

        Args:
            split: "train", "validation" or "test".

        Raises:
            ValueError: there is no such split.
        """
        return score(self.prepared, self._split(split), self._outputs(self._split(split)), self.config, self.dataset)

    def _split(self, name: str) -> Split:
        splits = self.prepared.splits
        if name not in splits:
            raise ArgumentError(f"there is no split {name!r}; choose one of {', '.join(splits)}.")
        return splits[name]

    def _outputs(self, split: Split) -> np.ndarray:
        size = whole_set(self.config, len(self.prepared.train)).batch_size
        with precision(self.config):
            outputs = predict(self.model, self.state, split, size)
        return in_units(outputs, split, self.dataset, self.config)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {'finished' if self.finished else 'not finished'})"


def as_path(what: str, path: Any) -> pathlib.Path:
    """Return a path, or raise if it is none."""
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise ArgumentTypeError(f"{what} is {path!r}, and must be a path, such as 'runs/ecg'.")
    return pathlib.Path(path)


def check_kind(who: str, dataset: Any) -> None:
    """Raise if what is given as a set is not one."""
    if dataset is not None and not isinstance(dataset, Dataset):
        raise ArgumentTypeError(
            f"{who}: dataset is a {type(dataset).__name__}, and must be an echograd.data.Dataset, or None to load the "
            "set by its name."
        )


def precision(config: Config) -> contextlib.AbstractContextManager:
    """Return the context in which the run's numbers have its precision, whatever is set outside."""
    return jax.enable_x64(config.precision == "float64")


def with_validation(dataset: Dataset, config: Config) -> Dataset:
    """Return the set with validation cases."""
    if dataset.validation is not None:
        return dataset
    return dataset.with_validation(config.validation_fraction, config.seed)


def prepare(dataset: Dataset, config: Config) -> Dataset:
    """Return the set as the model sees it."""
    return dataset.standardised(targets=dataset.task == "regression") if config.standardise else dataset


def in_units(outputs: np.ndarray, split: Split, dataset: Dataset, config: Config) -> np.ndarray:
    """Return logits as they are, and predictions in the shape and units of the targets."""
    if dataset.task == "classification":
        return outputs
    shift, scale = dataset.target_scale() if config.standardise else (0.0, 1.0)
    return shift + scale * outputs.reshape(split.targets.shape)


def class_weights(dataset: Dataset, config: Config) -> np.ndarray:
    """Return the weights of the classes in the loss."""
    weighted = dataset.task == "classification" and config.class_weights
    return dataset.class_weights() if weighted else np.ones(max(dataset.classes, 1), np.float32)


def score(prepared: Dataset, split: Split, outputs: np.ndarray, config: Config, dataset: Dataset) -> dict[str, Any]:
    """Return the metrics of outputs in units of the targets."""
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
    """Return the metrics of the constant that knows the training targets: their frequencies, or their mean."""
    if prepared.task == "classification":
        counts = prepared.train.class_counts(prepared.classes)
        logits = np.log(np.maximum(counts, 0.5) / counts.sum())
        outputs = np.broadcast_to(logits, (len(split), prepared.classes))
    else:
        shift, _ = dataset.target_scale()
        outputs = np.full(split.targets.shape, shift)
    return score(prepared, split, outputs, config, dataset)


def fingerprint(dataset: Dataset) -> str:
    """Return a digest of all cases of a set."""
    digest = hashlib.sha256()
    for name, split in dataset.splits.items():
        digest.update(f"{name} {split.inputs.shape} {split.targets.shape}".encode())
        for column in (split.inputs, split.targets, split.lengths):
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def check_dataset(dataset: Dataset, about: dict[str, Any], folder: pathlib.Path) -> None:
    """Raise if the set is not the one that the run in the folder was trained on."""
    if fingerprint(dataset) != about["fingerprint"]:
        raise ArgumentError(
            f"{dataset.name!r} has other cases than the set {about['name']!r} that {folder} was trained on. Open the "
            "run with that set, or train another run on this one."
        )
