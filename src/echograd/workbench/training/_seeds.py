"""Runs with several seeds: the spread of their scores, and their ensemble."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from echograd import ArgumentError
from echograd._internal import _checks
from echograd._internal._files import make_folder, write_json

from .._paths import as_path
from ..data import Dataset, load
from ._config import Config
from ._fit import fit
from ._predictions import Predictions, mean_of
from ._predictor import Predictor
from ._run import CONFIG, Run, check_is_dataset, score
from ._trainer import Progress

SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Seeds:
    """Finished runs that differ in their seeds only.

    Attributes:
        runs: one run for every seed.
        summary: `{"seeds", "test": {metric: {"mean", "sd", "each"}}, "ensemble": {metric: value}}`. The standard
            deviation divides by the number of seeds minus 1.

    Example:
        ```python
        found = fit_seeds(recipe(dataset), dataset, seeds=5, out="runs/five")
        found.summary["test"]["accuracy"], found.predictor.predict(X).labels
        ```
    """

    runs: tuple[Run, ...]
    summary: dict[str, Any]

    @property
    def predictor(self) -> Predictor:
        """The ensemble of the best models."""
        parts = [run.predictor for run in self.runs]
        members = [member for part in parts for member in part.members]
        return Predictor(members, parts[0].class_names, parts[0].channel_names)


def fit_seeds(
    config: Config,
    dataset: Dataset | None = None,
    *,
    seeds: int,
    out: str | os.PathLike,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    checkpoint_minutes: float = 5.0,
    devices: int = 1,
    begin: Callable[[Config], None] | None = None,
) -> Seeds:
    """Train with several seeds, and score every model and their ensemble on the test cases.

    The seeds are `config.seed`, `config.seed + 1` and so on. The runs are in the folders `seed0`, `seed1` and so on of
    `out`, named after the seed; `summary.json` has the scores. The ensemble predicts the mean of the models'
    probabilities, or of their predicted targets.

    Args:
        config: the settings of the first run.
        dataset: see `fit`.
        seeds: number of seeds.
        out: the folder of the runs.
        resume: continue the runs that exist in the folder; finished runs are not repeated.
        progress: see `fit`.
        checkpoint_minutes: see `fit`.
        devices: see `fit`.
        begin: called with the config of every run before it begins.

    Returns:
        The runs and their scores.

    Raises:
        ArgumentError: `seeds` is not an integer of at least 1. See `fit` for other errors.

    Example:
        ```python
        fit_seeds(ecg_recipe(), seeds=5, out="runs/ecg").summary["test"]["balanced_accuracy"]["mean"]
        ```
    """
    _checks.instance("fit_seeds", "config", config, Config, "a Config, such as recipe(dataset)")
    seeds = _checks.integer("fit_seeds", "seeds", seeds, 1, 10_000)
    folder = as_path("fit_seeds", "out", out)
    check_is_dataset("fit_seeds", dataset)
    if begin is not None:
        _checks.function("fit_seeds", "begin", begin, "(Config) -> None")
    if (folder / CONFIG).is_file():
        raise ArgumentError(
            f"fit_seeds: {folder} holds one training run, not a folder of runs. Choose another out= (--out)."
        )
    dataset = load(config.dataset) if dataset is None else dataset
    runs = []
    for seed in range(config.seed, config.seed + seeds):
        one, place = dataclasses.replace(config, seed=seed), folder / f"seed{seed}"
        if begin is not None:
            begin(one)
        make_folder(folder, "Choose another out= (--out), or remove the obstacle.")
        runs.append(
            fit(
                one,
                dataset,
                out=place,
                resume=resume and (place / CONFIG).is_file(),
                progress=progress,
                checkpoint_minutes=checkpoint_minutes,
                devices=devices,
            )
        )
    summary = summarise(tuple(runs))
    write_json(pathlib.Path(folder) / SUMMARY, summary)
    return Seeds(tuple(runs), summary)


def summarise(runs: tuple[Run, ...]) -> dict[str, Any]:
    """Return the scores of runs on the test cases: every one, mean, standard deviation, and those of the ensemble."""
    scores = [run.results["test"] for run in runs]
    test = {}
    for name in scores[0]:
        if name == "confusion":
            continue
        each = [float("nan") if one[name] is None else float(one[name]) for one in scores]
        sd = float(np.std(each, ddof=1)) if len(each) > 1 else float("nan")
        test[name] = {"mean": float(np.mean(each)), "sd": sd, "each": each}
    first = runs[0]
    outputs = mean_of([Predictions(run.predict("test"), first.dataset.class_names) for run in runs]).outputs
    ensemble = score(first.prepared, first.prepared.test, outputs, first.config, first.dataset)
    return {"seeds": [run.config.seed for run in runs], "test": test, "ensemble": ensemble}
