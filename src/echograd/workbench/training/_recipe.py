"""Default settings for a data set."""

import dataclasses
from typing import Any

from ..data import Dataset
from ._config import Config


def recipe(dataset: Dataset, **changes: Any) -> Config:
    """Return default settings for a data set.

    Args:
        dataset: the data set to train on.
        changes: fields of `Config` with new values.

    Raises:
        ArgumentError: a value is out of its range.
        ArgumentTypeError: a value has the wrong type, or there is no such field.

    Example:
        ```python
        run = fit(recipe(dataset, seed=1), dataset, out="runs/mine")
        ```
    """
    return dataclasses.replace(Config(dataset.name), **changes)
