"""The training loop: what is kept, what is exact, and where it stops."""

import contextlib
import dataclasses
import importlib.metadata
import math
import os
import pathlib
import secrets
import time
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from echograd import ArgumentError, ArgumentTypeError, EchogradError, RunError
from echograd._internal._errors import RUNTIME_ERRORS, said
from echograd._internal._files import make_folder, write_json

from ..data import Batches, Dataset, load
from ._config import Config
from ._files import append_line, folder_lock, keep_lines, load_checkpoint, save_checkpoint, seal
from ._learner import Learner, Shapes, make_learner, on_device, predict, step_key, train_step, whole_set
from ._memory import check_memory
from ._metrics import confusion_matrix, scores_from_confusion
from ._processes import barrier, is_first, on_first_process
from ._run import (
    BEST,
    CONFIG,
    LAST,
    METRICS,
    RESULTS,
    Run,
    as_path,
    baseline,
    check_dataset,
    check_kind,
    class_weights,
    fingerprint,
    in_units,
    precision,
    prepare,
    score,
    with_validation,
)

# Metrics of which more is better.
_RISING = ("accuracy", "balanced_accuracy", "f1", "r2")


class TrainingDiverged(EchogradError, RuntimeError):
    """The loss, its gradient or an output of the model is not finite, or a gradient was refused."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a progress callback is told, after every step and at the end of every epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: number of epochs at most.
        batch: steps done in this epoch.
        batches: steps in an epoch.
        loss: mean loss of this epoch so far.
        record: at the end of the epoch its line of metrics, before that None.
        best: at the end of the epoch, whether its model is the best so far.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    record: dict[str, Any] | None = None
    best: bool = False


@dataclasses.dataclass(frozen=True)
class _Snapshot:
    """A run between two steps. Immutable, so that it is whole wherever an interrupt comes.

    Attributes:
        learner: the arrays.
        epoch: epochs that have come to their end.
        batch: steps done in the epoch that has not.
        step: steps done in all.
        cost: summed cost of the epoch so far.
        count: what to divide it by.
        slope: summed norms of the gradients of the epoch so far.
        confusion: counts of the epoch so far.
        best_epoch: the epoch whose model is the best so far; 0: none.
        best_score: its score, more is better.
        seconds: time spent in all.
    """

    learner: Learner
    epoch: int = 0
    batch: int = 0
    step: int = 0
    cost: float = 0.0
    count: float = 0.0
    slope: float = 0.0
    confusion: tuple[tuple[int, ...], ...] = ()
    best_epoch: int = 0
    best_score: float | None = None
    seconds: float = 0.0

    def header(self) -> dict[str, Any]:
        """Return everything but the arrays."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["learner"]
        return fields

    @staticmethod
    def read(path: pathlib.Path, run: str, like: Learner) -> "_Snapshot":
        header, learner = load_checkpoint(path, run, like)
        try:
            header["confusion"] = tuple(map(tuple, header["confusion"]))
            return _Snapshot(learner, **header)
        except (KeyError, TypeError) as error:
            raise ArgumentError(
                f"{path} is the best model of this run, and not a checkpoint to go on from ({error}). Restore the "
                "file; or delete it and resume the run, which then trains from its beginning to the same numbers."
            ) from error


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

    The loss is the cross-entropy, or the mean squared error in units of the training targets' standard deviation;
    with class weights $w_c = n / (C n_c)$ every class counts the same. After every epoch the model is scored on the
    validation cases; the best one is kept, and scored on the test cases at the end.

    Every step is a function of the config, the data and the step's number. So a run that was broken off (by Ctrl-C,
    by `kill -9`, by a power cut) and resumed has the numbers of an unbroken run, bit for bit, on the same machine
    with the same versions.

    The folder holds `config.json` (the config, versions, and what the set was), `metrics.jsonl` (a line an epoch),
    `last.eqx` and `best.eqx` (checkpoints, replaced atomically) and in the end `results.json`. Each file carries the
    identity of the run and a checksum, so that a file of another run, or one that was edited, is refused.

    Args:
        config: the run.
        dataset: the set, in its own units; by default `echograd.data.load(config.dataset)`.
        out: the folder; it must not exist, or be empty.
        resume: go on with the run in the folder, which must have the same config and data.
        progress: called with a `Progress` after every step and every epoch. Nothing is printed.
        checkpoint_minutes: a checkpoint is also written within an epoch when the last one is older than this; at least
            0.
        devices: how many devices of every process share every batch. The numbers are those of one device up to the
            rounding of sums over the batch, and a run may be resumed with another number of devices or processes.

    Several processes train one model where each of them has called `jax.distributed.initialize` before, and then this
    function with the same arguments. The first of them writes the folder, which all must be able to read.

    Returns:
        The run, with its best model.

    Raises:
        FileExistsError: the folder holds a run or something else.
        FileNotFoundError: there is nothing to resume.
        TypeError: an argument is of the wrong type.
        ValueError: the run to resume has another config or other data, or the config does not fit the data or the
            memory.
        TrainingDiverged: the loss, its gradient or an output is not finite. The last checkpoint stays.
        RuntimeError: another process is training in the folder.
        OSError: a file cannot be written. The last checkpoint stays.
        KeyboardInterrupt: after a checkpoint was written.

    Example:
        ```python
        run = fit(ecg_recipe(), out="runs/ecg", progress=print)
        run.results["test"]["balanced_accuracy"]
        ```
    """
    _check_arguments(config, progress, checkpoint_minutes, devices)
    folder = as_path("fit: out=", out)
    check_kind("fit", dataset)
    if dataset is None:
        dataset = load(config.dataset)
    elif dataset.name != config.dataset:
        raise ArgumentError(f"the config is for the set {config.dataset!r}, and {dataset.name!r} is given.")
    with precision(config), contextlib.ExitStack() as held:
        trainer = _Trainer(config, dataset, folder, progress, checkpoint_minutes, devices)
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
    """Raise if an argument of `fit` is of the wrong type."""
    if not isinstance(config, Config):
        raise ArgumentTypeError(
            f"fit: config is a {type(config).__name__}, and must be a Config, such as ecg_recipe()."
        )
    if progress is not None and not callable(progress):
        raise ArgumentTypeError(f"fit: progress={progress!r} is not a function of a Progress.")
    if isinstance(checkpoint_minutes, bool) or not isinstance(checkpoint_minutes, int | float):
        raise ArgumentTypeError(f"fit: checkpoint_minutes={checkpoint_minutes!r} is not a number.")
    if not checkpoint_minutes >= 0:
        raise ArgumentError(f"fit: checkpoint_minutes={checkpoint_minutes!r}: a time is at least 0.")
    if isinstance(devices, bool) or not isinstance(devices, int):
        raise ArgumentTypeError(f"fit: devices={devices!r} is not a whole number.")


def _begin(trainer: "_Trainer", held: contextlib.ExitStack) -> None:
    """Make the folder, and refuse one that is there already."""
    folder = trainer.folder
    make_folder(folder, "Give another out= (--out), or mend that.")
    # A run that was killed before its first file was whole has left nothing.
    if any(path.name != f".{CONFIG}.partial" for path in folder.iterdir()):
        there = "a training run" if (folder / CONFIG).is_file() else "something else"
        remedy = ", or resume=True (--resume) to go on with it" if there == "a training run" else ""
        raise FileExistsError(f"{folder} holds {there}, which is not overwritten. Give another out= (--out){remedy}.")
    held.enter_context(folder_lock(folder))
    write_json(folder / CONFIG, seal({**trainer.config.to_dict(), **trainer.about()}, secrets.token_hex(8)))


def _resume(trainer: "_Trainer") -> None:
    """Put the trainer where the run in the folder was."""
    folder = trainer.folder
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} holds no training run to resume. Leave resume (--resume) out to begin one.")
    run = Run.open(folder)
    trainer.id = run.id
    differing = _differences(run.config.to_dict(), trainer.config.to_dict())
    if differing:
        raise ArgumentError(
            f"{folder} was begun with other settings, so it cannot be resumed with these: {'; '.join(differing)}. "
            "Resume it with its own, or give another out= (--out)."
        )
    about = trainer.about()
    check_dataset(trainer.dataset, run._data, folder)
    changed = _differences(run.versions, about["versions"])
    if changed:
        warnings.warn(f"{folder} is resumed elsewhere ({'; '.join(changed)}): last digits may differ.", stacklevel=3)
    if (folder / LAST).is_file():
        snapshot = _Snapshot.read(folder / LAST, run.id, trainer.snapshot.learner)
        if snapshot.best_epoch and not run.finished:  # now, and not when all epochs are over
            header, _ = _read_best(folder, run.id, snapshot.learner)
            # The best model is written before the checkpoint of its epoch.
            if header["epoch"] not in (snapshot.best_epoch, snapshot.epoch + 1):
                raise ArgumentError(
                    f"{folder / BEST} holds the model of epoch {header['epoch']}, and {LAST} says that the best one is "
                    f"of epoch {snapshot.best_epoch}. Restore it; or delete both and resume the run, which then trains "
                    "from its beginning to the same numbers."
                )
        trainer.snapshot = dataclasses.replace(snapshot, learner=trainer.place(snapshot.learner))
    if not run.finished:  # and not when a checkpoint is due
        on_first_process(lambda: make_folder(folder, "Mend that, and resume the run."))
    # The line of an epoch is written before its checkpoint.
    on_first_process(lambda: keep_lines(folder / METRICS, run.id, trainer.snapshot.epoch))


def _read_best(folder: pathlib.Path, run: str, learner: Learner) -> tuple[dict[str, Any], Any]:
    """Return the header, and the model and its state, of the best model so far."""
    if not (folder / BEST).is_file():
        raise FileNotFoundError(
            f"{folder / BEST} is gone, the best model of the epochs that {LAST} goes on from. Restore it; or delete "
            f"{LAST} and resume the run, which then trains from its beginning to the same numbers."
        )
    return load_checkpoint(folder / BEST, run, (learner.model, learner.state))


def _differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{path}{key}.")
        elif a != b:
            found.append(f"{path}{key} is {a!r} there and {b!r} here")
    return found


def _shardings(devices: int, batch_size: int) -> tuple[jax.sharding.Sharding | None, jax.sharding.Sharding | None]:
    """Return where the cases of a batch go, and where parameters go; `None` where there is only one device.

    Args:
        devices: how many devices of every process take part.
        batch_size: cases in a batch.
    """
    there = jax.local_devices()
    if not 1 <= devices <= len(there):
        hint = ""
        if there[0].platform == "cpu":
            hint = f" XLA_FLAGS=--xla_force_host_platform_device_count={devices} makes a CPU count as several."
        raise ArgumentError(f"devices={devices}: {len(there)} are here ({there[0].device_kind}).{hint}")
    processes = jax.process_count()
    if batch_size % (processes * devices):
        several = f" in each of {processes} processes" if processes > 1 else ""
        raise ArgumentError(
            f"devices={devices}{several} cannot share batches of {batch_size} cases evenly. Change batch_size."
        )
    if processes * devices == 1:
        return None, None
    chosen = [device for process in range(processes) for device in jax.local_devices(process)[:devices]]
    mesh = jax.sharding.Mesh(np.asarray(chosen), ("cases",))
    spec = jax.sharding.PartitionSpec
    return jax.sharding.NamedSharding(mesh, spec("cases")), jax.sharding.NamedSharding(mesh, spec())


class _Trainer:
    """One call of `fit`."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        folder: pathlib.Path,
        progress: Callable[[Progress], None] | None,
        checkpoint_minutes: float,
        devices: int,
    ) -> None:
        self.config, self.dataset, self.folder, self.id = config, dataset, folder, ""
        self.split_up = with_validation(dataset, config)
        self.prepared = prepare(self.split_up, config)
        self.shapes = Shapes.of(dataset)
        self.monitor = config.monitor
        if self.monitor == "auto":
            self.monitor = "balanced_accuracy" if dataset.task == "classification" else "loss"
        choices = {
            "classification": ("loss", "accuracy", "balanced_accuracy", "f1"),
            "regression": ("loss", "mse", "mae", "r2"),
        }[dataset.task]
        if self.monitor not in choices:
            raise ArgumentError(f"monitor={self.monitor!r} for {dataset.task}: choose one of {', '.join(choices)}.")
        count = devices * jax.process_count()
        held = whole_set(config, len(self.prepared.train), max(count, 1))
        self.size = held.batch_size
        self.devices, self.shared, self.everywhere = devices, *_shardings(devices, self.size)
        self.batches = Batches(self.prepared.train, self.size, seed=config.seed, multiple=count)
        self.steps = config.epochs * len(self.batches)
        if self.steps >= 2**31:
            raise ArgumentError(
                f"epochs={config.epochs} of {len(self.batches)} batches are {self.steps:,} steps, and fewer than 2³¹ "
                "can be counted. Lower epochs."
            )
        dtype = jnp.float64 if config.precision == "float64" else jnp.float32
        self.class_weights = jnp.asarray(class_weights(self.prepared, config), dtype)
        sizes = eqx.filter_eval_shape(make_learner, held, self.shapes, self.steps)
        check_memory(sizes.model, sizes.moments, self.size * dataset.length * dataset.inputs_dim)
        self.snapshot = _Snapshot(self.place(make_learner(held, self.shapes, self.steps)))
        self.report = progress or (lambda _: None)
        self.interval = 60 * checkpoint_minutes

    def about(self) -> dict[str, Any]:
        """Return what the config file says besides the config."""
        device = jax.local_devices()[0]
        count = self.devices * jax.process_count()
        several = f" × {count}" if count > 1 else ""
        return {
            "versions": {
                "echograd": importlib.metadata.version("echograd"),
                "jax": jax.__version__,
                "dtype": self.config.precision,
                "device": f"{device.platform}: {device.device_kind}{several}",
            },
            "data": {
                "name": self.dataset.name,
                "fingerprint": fingerprint(self.dataset),
                "classes": list(self.dataset.class_names),
                **dataclasses.asdict(self.shapes),
            },
        }

    def place(self, learner: Learner) -> Learner:
        """Put a whole learner onto every device."""
        return learner if self.everywhere is None else eqx.filter_shard(learner, self.everywhere)

    def run(self) -> None:
        """Train to the end, from wherever the snapshot is."""
        self.clock = time.monotonic()
        self.saved = time.monotonic()
        try:
            if not (self.folder / LAST).is_file():
                self.save()
            while not self.done():
                self.epoch()
        except KeyboardInterrupt:
            self.save()
            raise
        if not (self.folder / RESULTS).is_file():
            self.finish()

    def done(self) -> bool:
        """Return whether all epochs are over, or the patience."""
        now, patience = self.snapshot, self.config.patience
        tired = patience is not None and now.epoch - max(now.best_epoch, 1) >= patience
        return now.epoch >= self.config.epochs or tired

    def epoch(self) -> None:
        """Train to the end of the current epoch, score the model, and keep it."""
        for batch in self.batches.epoch(self.snapshot.epoch, self.snapshot.batch):
            self.snapshot = self.step(self.snapshot, batch)
            self.tell()
            if time.monotonic() - self.saved >= self.interval:
                self.save()
        now = self.snapshot
        validation = self.scores("validation", now.learner)
        train: dict[str, Any] = {"loss": now.cost / now.count, "gradient_norm": now.slope / now.batch}
        if self.dataset.task == "classification":
            train |= scores_from_confusion(np.asarray(now.confusion))
        reached = validation[self.monitor] * (1 if self.monitor in _RISING else -1)
        # A first model is kept even if its score is no number (R² where all targets are the same, say).
        best = now.best_score is None or reached > now.best_score
        epoch, seconds = now.epoch + 1, now.seconds + time.monotonic() - self.clock
        self.clock = time.monotonic()
        record = {
            "epoch": epoch,
            "step": now.step,
            "seconds": round(seconds, 3),
            "train": train,
            "validation": {name: value for name, value in validation.items() if name != "confusion"},
        }
        after = _Snapshot(
            now.learner,
            epoch=epoch,
            step=now.step,
            best_epoch=epoch if best else now.best_epoch,
            best_score=(reached if math.isfinite(reached) else None) if best else now.best_score,
            seconds=seconds,
        )
        # Whatever comes between these writes: the epoch is trained again from the last checkpoint, to the same end.
        if best and is_first():
            header = {"epoch": epoch, "monitor": self.monitor, "score": validation[self.monitor]}
            save_checkpoint(self.folder / BEST, self.id, header, (now.learner.model, now.learner.state))
        if is_first():
            append_line(self.folder / METRICS, self.id, record)
        self.save(after)
        self.snapshot = after
        self.report(Progress(epoch, self.config.epochs, now.batch, len(self.batches), train["loss"], record, best))

    def step(self, now: _Snapshot, batch: Any) -> _Snapshot:
        """Return the run one step further, or raise where the numbers end."""
        where = f"step {now.step + 1} (epoch {now.epoch + 1}, batch {now.batch + 1})"
        try:
            learner, (cost, count, slope, outputs) = train_step(
                self.config.optimiser,
                self.shapes,
                self.steps,
                now.learner,
                on_device(batch, self.shared),
                self.class_weights,
                step_key(self.config, now.step),
                self.everywhere,
            )
            cost, count, slope = float(cost), float(count), float(slope)
        except RUNTIME_ERRORS as error:
            raise self.refused(where, error) from error
        if not math.isfinite(cost) or not math.isfinite(slope):
            name, value = ("loss", cost) if not math.isfinite(cost) else ("norm of the gradient", slope)
            raise self.diverged(where, f"the {name} is {value}")
        confusion = now.confusion
        if self.dataset.task == "classification":
            valid = batch.weights > 0
            predictions = np.asarray(outputs).argmax(1)
            counts = confusion_matrix(batch.targets[valid], predictions[valid], self.dataset.classes)
            total = counts + np.asarray(confusion) if confusion else counts
            confusion = tuple(map(tuple, total.tolist()))
        return dataclasses.replace(
            now,
            learner=learner,
            batch=now.batch + 1,
            step=now.step + 1,
            cost=now.cost + cost,
            count=now.count + count,
            slope=now.slope + slope,
            confusion=confusion,
        )

    def refused(self, where: str, error: Exception) -> Exception:
        """Return the error for a compiled program that refused to go on, or that could not."""
        why = said(error)
        if why.startswith("out of memory"):
            return RunError(why)
        # The remedies of the library are for its callers, who would change the model by hand.
        return self.diverged(where, why.partition(". ")[0].removesuffix("."))

    def diverged(self, where: str, what: str) -> TrainingDiverged:
        rate, clip = self.config.optimiser.learning_rate, self.config.optimiser.clip
        clipping = "set optimiser.clip" if clip is None else f"lower optimiser.clip (it is {clip:g})"
        return TrainingDiverged(
            f"Training diverged at {where}: {what}. Begin another run with a lower learning rate (it is {rate:g}), or "
            f"{clipping}. The last checkpoint in {self.folder} stays, but resuming it would end here again."
        )

    def tell(self) -> None:
        now = self.snapshot
        loss = now.cost / max(now.count, 1)
        self.report(Progress(now.epoch + 1, self.config.epochs, now.batch, len(self.batches), loss))

    def save(self, snapshot: _Snapshot | None = None) -> None:
        """Write the checkpoint to go on from."""
        now = self.snapshot if snapshot is None else snapshot
        if is_first():
            save_checkpoint(self.folder / LAST, self.id, now.header(), now.learner)
        self.saved = time.monotonic()

    def scores(self, name: str, learner: Any) -> dict[str, Any]:
        """Return the metrics of a model on a split, or raise where its outputs are not finite."""
        split, where = self.prepared.splits[name], f"step {self.snapshot.step}, on the {name} cases"
        try:
            outputs = predict(learner.model, learner.state, split, self.size, self.shared, self.everywhere)
        except RUNTIME_ERRORS as error:
            raise self.refused(where, error) from error
        wrong = ~np.isfinite(outputs).reshape(len(outputs), -1).all(1)
        if wrong.any():
            raise self.diverged(where, f"{wrong.sum()} of {len(outputs)} outputs of the model are not finite")
        outputs = in_units(outputs, split, self.split_up, self.config)
        return score(self.prepared, split, outputs, self.config, self.split_up)

    def finish(self) -> None:
        """Score the best model and write the results."""
        learner = self.snapshot.learner
        barrier("the best model is written")
        header, (model, state) = _read_best(self.folder, self.id, learner)
        best = self.place(Learner(model, state, None))
        constant = "majority" if self.dataset.task == "classification" else "mean"
        results = {
            "best_epoch": header["epoch"],
            "epochs": self.snapshot.epoch,
            "seconds": round(self.snapshot.seconds, 3),
            "parameters": sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))),
            "monitor": self.monitor,
            "classes": list(self.dataset.class_names),
            "test": self.scores("test", best),
            "validation": self.scores("validation", best),
            constant: baseline(self.prepared, self.prepared.test, self.config, self.split_up),
        }
        if is_first():
            write_json(self.folder / RESULTS, seal(results, self.id))
