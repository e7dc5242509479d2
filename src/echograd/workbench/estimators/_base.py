"""The base of all estimators: parameters, training, prediction, and one file to save and load."""

import abc
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from echograd import ArgumentError
from echograd._internal import _checks
from echograd._internal._checks import shown

from ..data import DataError, Dataset, Split
from ..training import Predictions, Predictor, fit_seeds
from ..training._predictor import load_predictor
from ..training._trainer import Progress
from ._errors import NotFittedError
from ._parameters import Parameters, config_of


class AbstractSequenceEstimator(Parameters, abc.ABC):
    """The base of `SequenceClassifier`, `SequenceRegressor` and other estimators of sequences.

    A subclass writes `fit`: it checks its arguments, makes a `Dataset` and calls `_train`, which splits validation
    cases off. It predicts with `_predictions`. `_about` and `_restore` save and load its own attributes.

    Parameters that are None have the value of `echograd.workbench.training.recipe` for the data set.

    Args:
        model: kind of the oscillators, or "hopfield"; see `Config`.
        gradient: "echo" or "backprop"; see `Config`.
        epochs: largest number of passes through the training cases.
        batch_size: number of cases in a batch.
        patience: stop after this many epochs without a better validation score.
        validation_fraction: share of the cases that choose the best epoch and stop training; 0 trains on all cases and
            keeps the last epoch. With `patience`, None is 0.2.
        hidden: width of the residual stream.
        units: number of oscillators in a block.
        blocks: number of blocks.
        dropout: probability of dropping a feature in training.
        learning_rate: the highest learning rate.
        weight_decay: decay of weight matrices.
        class_weights: give every class the same total weight in the loss.
        standardise: scale channels (and regression targets) by mean and standard deviation of the training cases.
        precision: "float32" or "float64".
        seed: seed of the validation cases, the initial weights, the order of cases, and dropout.
        ensemble: number of models, with seeds `seed`, `seed + 1` and so on; predictions are their mean.
        settings: other fields of `Config`, as nested dictionaries, such as `{"network": {"norm": "batch"}}`.
        progress: True prints one line an epoch; a function is called with every `Progress`.

    Attributes:
        predictor_: the trained models, after `fit`.
        history_: after `fit` one record for every epoch, as `Run.history` returns it; of an ensemble those of all
            models, one after the other.
        n_features_in_: number of channels, after `fit`.
    """

    def __init__(
        self,
        model: Literal["linear", "nonlinear", "damped", "hopfield"] | None = None,
        gradient: Literal["echo", "backprop"] | None = None,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        patience: int | None = None,
        validation_fraction: float | None = None,
        hidden: int | None = None,
        units: int | None = None,
        blocks: int | None = None,
        dropout: float | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        class_weights: bool | None = None,
        standardise: bool | None = None,
        precision: Literal["float32", "float64"] | None = None,
        seed: int = 0,
        ensemble: int = 1,
        settings: Mapping[str, Any] | None = None,
        progress: bool | Callable[[Progress], None] = False,
    ) -> None:
        # scikit-learn's `clone` needs the arguments as they are; `fit` checks them.
        self.model = model
        self.gradient = gradient
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.hidden = hidden
        self.units = units
        self.blocks = blocks
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.class_weights = class_weights
        self.standardise = standardise
        self.precision = precision
        self.seed = seed
        self.ensemble = ensemble
        self.settings = settings
        self.progress = progress

    @abc.abstractmethod
    def fit(self, X: Any, y: Any) -> "AbstractSequenceEstimator":
        """Train on cases and return the estimator."""

    @abc.abstractmethod
    def predict(self, X: Any) -> np.ndarray:
        """Predict new cases."""

    def save(self, path: Any) -> None:
        """Write the fitted estimator into one file. It holds parameters as JSON and arrays; `progress` is left out.

        Args:
            path: the file.

        Raises:
            NotFittedError: the estimator is not fitted.
            ArgumentTypeError: a parameter is not a plain value.
            OSError: the file cannot be written.

        Example:
            ```python
            estimator.save("beats.eqx")
            eg.SequenceClassifier.load("beats.eqx").predict(X)
            ```
        """
        predictor = self._fitted("save")
        params = {name: _plain(name, value) for name, value in self.get_params().items() if name != "progress"}
        predictor.save(path, {"estimator": type(self).__name__, "params": params, "more": self._about()})

    @classmethod
    def load(cls, path: Any) -> Any:
        """Read an estimator from a file that `save` has written. Nothing in the file is executed.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: the file is damaged, or holds another kind of estimator.
        """
        predictor, about = load_predictor(path)
        if about.get("estimator") != cls.__name__:
            held = about.get("estimator") or "model without an estimator; read it with Predictor.load"
            raise DataError(f"{path} holds a {held}, not a {cls.__name__}. Load it with the class that has saved it.")
        try:
            found = cls(**about["params"])
            found._restore(about["more"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not a saved {cls.__name__}: {error}. Save the estimator again.") from error
        found.predictor_ = predictor
        found.n_features_in_ = len(predictor.channel_names)
        return found

    def _settings(self) -> Any:
        """Return the parameter `settings`; a subclass may add its own defaults."""
        return self.settings

    def _about(self) -> dict[str, Any]:
        """Return the plain values that `_restore` needs to set the attributes of a fitted subclass."""
        return {}

    def _restore(self, about: Mapping[str, Any]) -> None:
        """Set the attributes of a fitted subclass from the values of `_about`."""

    def _with_validation(self, dataset: Dataset) -> Dataset:
        """Return the data set with validation cases, if there are to be any; they also stand in for the test cases."""
        if dataset.validation is None and (fraction := config_of(self.get_params(), dataset).validation_fraction):
            dataset = dataset.with_validation(fraction, self.seed)
        return dataset._with(test=dataset.validation or dataset.train)

    def _train(self, dataset: Dataset) -> None:
        """Train the models on a data set, and set the attributes of all fitted estimators."""
        owner = type(self).__name__
        ensemble = _checks.integer(owner, "ensemble", self.ensemble, 1, 1000)
        _checks.integer(owner, "seed", self.seed, 0)
        if isinstance(self.progress, bool):
            progress = print_epoch if self.progress else None
        else:
            progress = _checks.function(owner, "progress", self.progress, "(Progress) -> None, nor True or False")
        config = config_of({**self.get_params(), "settings": self._settings()}, dataset)
        dataset = self._with_validation(dataset)
        with tempfile.TemporaryDirectory(prefix="echograd-") as folder:
            found = fit_seeds(
                config, dataset, seeds=ensemble, out=pathlib.Path(folder) / "runs", progress=progress,
                checkpoint_minutes=1e6,
            )  # fmt: skip
            self.predictor_ = found.predictor  # reads the files
            self.history_ = [record for run in found.runs for record in run.history()]
        self.n_features_in_ = dataset.inputs_dim

    def _predictions(self, X: Any, owner: str = "predict") -> Predictions:
        """Return the predictions of the fitted models."""
        return self._fitted(owner).predict(X)

    def _fitted(self, owner: str) -> Predictor:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"{type(self).__name__}.{owner}: the estimator is not fitted. Call fit(X, y) first.")
        return self.predictor_

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether `fit` is through."""
        return hasattr(self, "predictor_")

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags. Only scikit-learn calls this."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=True),
            input_tags=InputTags(two_d_array=True, three_d_array=True),
        )


def split_of(owner: str, series: tuple[np.ndarray, ...], targets: np.ndarray, groups: Any) -> Split:
    """Return cases with their targets and groups as a split."""
    if len(targets) != len(series):
        raise ArgumentError(f"{owner}: X has {len(series)} cases, but y has {len(targets)}. Pass one target for each.")
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (len(series),):
            raise ArgumentError(
                f"{owner}: groups has shape {groups.shape}; pass one name for each of the {len(series)} cases."
            )
    return Split.from_series(series, targets, groups)


def dataset_of(name: str, split: Split, class_names: tuple[str, ...]) -> Dataset:
    """Return a data set that has these cases for all purposes."""
    return Dataset(
        name,
        split,
        None,
        split,
        "classification" if class_names else "regression",
        class_names,
        tuple(f"channel {i}" for i in range(split.inputs.shape[2])),
        None,
        "",
        "",
        "",
    )


def print_epoch(now: Progress) -> None:
    """Print a line at the end of an epoch."""
    if now.record is not None:
        train, validation = now.record["train"], now.record["validation"]
        metric = "balanced_accuracy" if "balanced_accuracy" in train else "mae"
        text = f"epoch {now.epoch}/{now.epochs}: training loss {train['loss']:.4f}"
        if validation:
            text += f", validation loss {validation['loss']:.4f}, {metric.replace('_', ' ')} {validation[metric]:.4f}"
        print(text + (", best so far" if validation and now.best else ""))


def _plain(name: str, value: Any) -> Any:
    """Return a parameter as a plain value for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(name, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ArgumentError(f"save: the parameter {name}={shown(value)} is not a plain value. Set it with set_params.")
