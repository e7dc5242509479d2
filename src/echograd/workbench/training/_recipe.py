"""Default settings for a data set."""

import dataclasses
import math
from typing import Any

from ..data import Dataset
from ._config import Config, Network, Optimiser
from ._learner import Shapes

# Steps of the oscillators in a case that the recipe aims at, and steps of the optimiser.
_STEPS, _UPDATES = 256, 1200
# A set with fewer training cases spares none for validation.
_SMALL = 500


def recipe(dataset: Dataset, **changes: Any) -> Config:
    """Return default settings for a data set.

    Damped oscillators with batch norms read the series in patches, so that a case has about 256 steps, and the read-out
    sees mean, maximum and standard deviation of every feature. Training steps see random windows of 80 % of a case,
    with 10 % smoothed labels. The number of epochs makes at least 1200 steps of the optimiser. Sets of fewer than 500
    training cases have no validation cases: a few cases choose a worse model than that of the last epoch.
    `docs/learning.md` tells how the settings were chosen, and what they reach.

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
    shapes, cases = Shapes.of(dataset), len(dataset.train)
    small, model = cases < _SMALL, changes.get("model", "damped")
    # With a target for every few samples, every sample is a step.
    patch = 1 if shapes.every else 2 ** max(round(math.log2(dataset.length / _STEPS)), 0)
    steps = -(-dataset.length // patch)
    memories = (min(4 / steps, 0.125), 0.25)
    batch = 16 if cases < 4 * _SMALL else 32
    settings = Config(
        dataset.name,
        model=model,
        nudge="symmetric" if model == "hopfield" and changes.get("gradient", "echo") == "echo" else "infinitesimal",
        network=Network(
            hidden=64,
            units=64,
            norm="batch",
            pooling="mean_max_deviation",
            patch=patch,
            decays=memories if model == "damped" else None,
        ),
        optimiser=Optimiser(),
        epochs=max(math.ceil(_UPDATES * batch / cases), 20),
        batch_size=batch,
        crop=1.0 if shapes.every or model == "hopfield" else 0.8,
        smoothing=0.1,
        validation_fraction=0.0 if small else 0.1,
    )
    return dataclasses.replace(settings, **changes)
