"""`fit`: begin or resume a training run in a folder."""

import contextlib
import dataclasses
import os
import secrets
import warnings
from collections.abc import Callable
from typing import Any

from echograd import ArgumentError
from echograd._internal import _checks
from echograd._internal._files import make_folder, write_json

from .._paths import as_path
from ..data import DataError, Dataset, load
from ._config import Config
from ._files import folder_lock, keep_lines, seal
from ._processes import barrier, on_first_process
from ._run import BEST, CONFIG, LAST, METRICS, Run, check_dataset, check_is_dataset, precision
from ._snapshot import Snapshot, read_best
from ._trainer import Progress, Trainer


def fit(
    config: Config,
    dataset: Dataset | None = None,
    *,
    out: str | os.PathLike,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    checkpoint_minutes: float = 5.0,
    devices: int = 1,
) -> Run:
    r"""Train an `HSSM` or a Hopfield network on a data set and keep everything in one folder.

    The loss is the cross-entropy, or the mean squared error in units of the training targets' standard deviation.
    With class weights $w_c = n / (C n_c)$ every class counts the same. After every epoch the model is scored on the
    validation cases; the best model is kept. At the end it is scored on the test cases.

    Every step depends only on the config, the data and the number of the step. So an interrupted run (Ctrl-C,
    `kill -9`, a power cut) that is resumed gives the same numbers as an uninterrupted run, bit for bit, on the same
    machine with the same versions.

    The folder holds `config.json` (config, versions and properties of the data set), `metrics.jsonl` (one line an
    epoch), `last.eqx` and `best.eqx` (checkpoints, replaced atomically) and at the end `results.json`. Each file
    carries the identity of the run and a checksum. Files of another run and edited files are refused.

    Several processes can train one model: each calls `jax.distributed.initialize` and then this function with the same
    arguments. Process 0 writes the folder; all processes must be able to read it.

    Args:
        config: the settings of the run.
        dataset: the data set in its own units; by default `echograd.workbench.data.load(config.dataset)`.
        out: the folder; it must not exist, or be empty.
        resume: continue the run in the folder, which must have the same config and data.
        progress: called with a `Progress` after every step and every epoch. Nothing is printed.
        checkpoint_minutes: also write a checkpoint within an epoch when the last one is older than this; at least 0.
        devices: how many devices of every process share every batch. The numbers are those of one device up to the
            rounding of sums over the batch. A run can be resumed with other numbers of devices and processes.

    Returns:
        The run, with its best model.

    Raises:
        FileExistsError: the folder holds a run or something else.
        FileNotFoundError: there is no run to resume.
        ArgumentTypeError: an argument has the wrong type.
        ArgumentError: an argument is out of range; the run to resume has another config or other data; the config
            does not fit the data or the memory.
        DataError: a file of the run to resume is damaged.
        TrainingDiverged: the loss, its gradient or an output is not finite. The last checkpoint stays.
        RunError: another process is training in the folder, or the device is out of memory.
        OSError: a file cannot be written. The last checkpoint stays.
        KeyboardInterrupt: training was interrupted; a checkpoint was written first.

    Example:
        ```python
        run = fit(ecg_recipe(), out="runs/ecg", progress=print)
        run.results["test"]["balanced_accuracy"]
        ```
    """
    _check_arguments(config, progress, checkpoint_minutes, devices)
    folder = as_path("fit", "out", out)
    check_is_dataset("fit", dataset)
    if dataset is None:
        dataset = load(config.dataset)
    elif dataset.name != config.dataset:
        raise ArgumentError(
            f"fit: the config is for the data set {config.dataset!r}, but dataset is {dataset.name!r}. Pass that set, "
            "or change the config."
        )
    with precision(config), contextlib.ExitStack() as held:
        trainer = Trainer(config, dataset, folder, progress, checkpoint_minutes, devices)
        if resume:
            on_first_process(lambda: held.enter_context(folder_lock(folder)) if folder.is_dir() else None)
            _resume(trainer)
        else:
            on_first_process(lambda: _begin(trainer, held))
            trainer.id = Run.open(folder).id
        trainer.run()
        barrier("the end")
    return Run.open(folder, dataset)


def _check_arguments(config: Any, progress: Any, checkpoint_minutes: Any, devices: Any) -> None:
    """Raise if an argument of `fit` has the wrong type or value."""
    _checks.instance("fit", "config", config, Config, "a Config, such as ecg_recipe()")
    if progress is not None:
        _checks.function("fit", "progress", progress, "(Progress) -> None")
    _checks.constant("fit", "checkpoint_minutes", checkpoint_minutes, lambda x: x >= 0, "it must be at least 0")
    _checks.integer("fit", "devices", devices)


def _begin(trainer: "Trainer", held: contextlib.ExitStack) -> None:
    """Make the folder and write its config; raise if the folder is not empty."""
    folder = trainer.folder
    make_folder(folder, "Choose another out= (--out), or remove the obstacle.")
    # A run that was killed during its first write left only this file.
    if any(path.name != f".{CONFIG}.partial" for path in folder.iterdir()):
        there = "a training run" if (folder / CONFIG).is_file() else "other files"
        remedy = ", or pass resume=True (--resume) to continue the run" if there == "a training run" else ""
        raise FileExistsError(f"{folder} holds {there} and is not overwritten. Choose another out= (--out){remedy}.")
    held.enter_context(folder_lock(folder))
    write_json(folder / CONFIG, seal({**trainer.config.to_dict(), **trainer.about()}, secrets.token_hex(8)))


def _resume(trainer: "Trainer") -> None:
    """Set the trainer to the last checkpoint of the run in the folder."""
    folder = trainer.folder
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} holds no training run to resume. Leave out resume=True (--resume) to begin one."
        )
    run = Run.open(folder)
    trainer.id = run.id
    differing = _differences(run.config.to_dict(), trainer.config.to_dict())
    if differing:
        raise ArgumentError(
            f"{folder} was begun with other settings and cannot be resumed with these: {'; '.join(differing)}. "
            "Resume it with its own settings, or choose another out= (--out)."
        )
    about = trainer.about()
    check_dataset(trainer.dataset, run._data, folder)
    changed = _differences(run.versions, about["versions"])
    if changed:
        warnings.warn(
            f"{folder} is resumed in another environment ({'; '.join(changed)}); the last digits may differ.",
            stacklevel=3,
        )
    if (folder / LAST).is_file():
        snapshot = Snapshot.read(folder / LAST, run.id, trainer.snapshot.learner)
        if snapshot.best_epoch and not run.finished:  # check this now, not after all epochs
            header, _ = read_best(folder, run.id, snapshot.learner)
            # The best model is written before the checkpoint of its epoch, so it may be one epoch ahead.
            if header["epoch"] not in (snapshot.best_epoch, snapshot.epoch + 1):
                raise DataError(
                    f"{folder / BEST} holds the model of epoch {header['epoch']}, but according to {LAST} the best "
                    f"model is that of epoch {snapshot.best_epoch}. Restore the file; or delete both files and resume "
                    "the run, which then trains from its beginning to the same numbers."
                )
        trainer.snapshot = dataclasses.replace(snapshot, learner=trainer.place(snapshot.learner))
    if not run.finished:  # check this now, not when the next checkpoint is due
        on_first_process(lambda: make_folder(folder, "Remove the obstacle, and resume the run."))
    # The line of an epoch is written before its checkpoint, so there may be one line too many.
    on_first_process(lambda: keep_lines(folder / METRICS, run.id, trainer.snapshot.epoch))


def _differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[str]:
    """Return one phrase for every value that differs between two nested dictionaries."""
    found = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{path}{key}.")
        elif a != b:
            found.append(f"{path}{key} is {a!r} there and {b!r} here")
    return found
