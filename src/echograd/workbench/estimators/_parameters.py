"""Parameters of an estimator, as scikit-learn reads and sets them."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from echograd import ArgumentError
from echograd._internal._checks import shown

from ..training import Config, recipe

# Parameters that are fields of `Config`, and of its parts `network` and `optimiser`.
SETTINGS = (
    "model",
    "gradient",
    "epochs",
    "batch_size",
    "patience",
    "validation_fraction",
    "class_weights",
    "standardise",
    "precision",
)
NETWORK = ("hidden", "units", "blocks", "dropout")
OPTIMISER = ("learning_rate", "weight_decay")


class Parameters:
    """`get_params` and `set_params` for a class whose constructor stores its arguments unchanged."""

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Args:
            deep: has no effect, because no parameter is an estimator.
        """
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Any:
        """Set parameters by name and return the estimator.

        Args:
            params: parameters with their new values.

        Raises:
            ArgumentError: there is no such parameter.
        """
        names = self._names()
        for name in params:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."
                raise ArgumentError(f"{type(self).__name__}: there is no parameter {shown(name)}. {hint}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={shown(value)}"
            for name, value in self.get_params().items()
            if not (value is defaults[name].default or value == defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def config_of(params: Mapping[str, Any], dataset: Any) -> Config:
    """Return the recipe for a data set, changed by the parameters that are not None, then by `settings`."""

    def given(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: params[name] for name in names if params.get(name) is not None}

    changes = given(SETTINGS)
    if params["patience"] is not None:
        changes = {"validation_fraction": 0.2, **changes}
    values = recipe(dataset, seed=params["seed"], **changes).to_dict()
    values["network"] |= given(NETWORK)
    values["optimiser"] |= given(OPTIMISER)
    settings = params["settings"] or {}
    if not isinstance(settings, Mapping):
        raise ArgumentError(
            f"settings={shown(settings)} is not a dictionary of fields of Config, such as {{'nudge': 'symmetric'}}."
        )
    for name, value in settings.items():
        values[name] = values[name] | value if isinstance(value, Mapping) and name in values else value
    return Config.from_dict(values)
