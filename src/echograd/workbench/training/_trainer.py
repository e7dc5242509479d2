"""The training loop: steps, scores, checkpoints, and when to stop."""

import dataclasses
import importlib.metadata
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from echograd import ArgumentError, EchogradError, RunError
from echograd._internal._errors import RUNTIME_ERRORS, said
from echograd._internal._files import write_json

from ..data import Batches, Dataset
from ._config import Config
from ._files import append_line, save_checkpoint, seal
from ._learner import Learner, Shapes, make_learner, on_device, predict, step_key, train_step, whole_set
from ._memory import check_memory
from ._metrics import confusion_matrix, scores_from_confusion
from ._predictor import Scale
from ._processes import barrier, is_first, shardings
from ._run import (
    BEST,
    LAST,
    METRICS,
    RESULTS,
    baseline,
    class_weights,
    fingerprint,
    in_units,
    prepare,
    score,
    with_validation,
)
from ._snapshot import Snapshot, read_best

# Metrics that are better when they are higher.
_RISING = ("accuracy", "balanced_accuracy", "f1", "r2")


class TrainingDiverged(EchogradError, RuntimeError):
    """Training diverged: the loss, its gradient or an output is not finite, or the library refused the gradient."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of training, passed to the progress callback after every step and at the end of every epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: largest number of epochs.
        batch: number of steps done in this epoch.
        batches: number of steps in an epoch.
        loss: mean loss of this epoch so far.
        record: at the end of an epoch its line of metrics; None before.
        best: at the end of an epoch, whether its model is the best so far.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    record: dict[str, Any] | None = None
    best: bool = False


class Trainer:
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
            raise ArgumentError(
                f"Config: monitor={self.monitor!r} is not a metric of {dataset.task}. Choose one of "
                f"{', '.join(choices)}."
            )
        count = devices * jax.process_count()
        held = whole_set(config, len(self.prepared.train), max(count, 1))
        self.size = held.batch_size
        self.devices, self.shared, self.everywhere = devices, *shardings(devices, self.size)
        self.batches = Batches(self.prepared.train, self.size, seed=config.seed, multiple=count)
        self.steps = config.epochs * len(self.batches)
        if self.steps >= 2**31:
            raise ArgumentError(
                f"Config: epochs={config.epochs} of {len(self.batches)} batches are {self.steps:,} steps, but the "
                "optimiser counts fewer than 2³¹. Lower epochs."
            )
        dtype = jnp.float64 if config.precision == "float64" else jnp.float32
        self.class_weights = jnp.asarray(class_weights(self.prepared, config), dtype)
        sizes = eqx.filter_eval_shape(make_learner, held, self.shapes, self.steps)
        check_memory(sizes.model, sizes.moments, self.size * dataset.length * dataset.inputs_dim)
        self.snapshot = Snapshot(self.place(make_learner(held, self.shapes, self.steps)))
        # The settings that do not matter to a step are left out, so that steps of several seeds are compiled once.
        self.settings = dataclasses.replace(config, dataset="any", seed=0, epochs=1, monitor="auto", patience=None)
        self.report = progress or (lambda _: None)
        self.interval = 60 * checkpoint_minutes

    def about(self) -> dict[str, Any]:
        """Return versions and properties of the data set, for the config file."""
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
                "channels": list(self.dataset.channel_names),
                "origin": self.dataset.origin and dict(self.dataset.origin),
                "scale": dataclasses.asdict(Scale.of(self.split_up, self.config)),
                **dataclasses.asdict(self.shapes),
            },
        }

    def place(self, learner: Learner) -> Learner:
        """Copy a learner to every device."""
        return learner if self.everywhere is None else eqx.filter_shard(learner, self.everywhere)

    def run(self) -> None:
        """Train from the current snapshot to the end."""
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
        """Return whether training is over: after all epochs, or after `patience` epochs without a better score."""
        now, patience = self.snapshot, self.config.patience
        stopped_early = patience is not None and now.epoch - max(now.best_epoch, 1) >= patience
        return now.epoch >= self.config.epochs or stopped_early

    def epoch(self) -> None:
        """Train to the end of the current epoch, score the model, and write metrics and checkpoints."""
        for batch in self.batches.epoch(self.snapshot.epoch, self.snapshot.batch):
            self.snapshot = self.step(self.snapshot, batch)
            self.tell()
            if time.monotonic() - self.saved >= self.interval:
                self.save()
        now = self.snapshot
        validation = self.scores("validation", now.learner) if self.prepared.validation else {}
        train: dict[str, Any] = {"loss": now.cost / now.count, "gradient_norm": now.slope / now.batch}
        if self.dataset.task == "classification":
            train |= scores_from_confusion(np.asarray(now.confusion))
        # Without validation cases the last model is kept.
        reached, loss, best = math.nan, math.nan, True
        if validation:
            reached, loss = validation[self.monitor] * (1 if self.monitor in _RISING else -1), validation["loss"]
            # A few validation cases are soon all right. Among models of equal score the loss decides.
            equal = reached == now.best_score and now.best_loss is not None and loss < now.best_loss
            # The first model is kept even if its score is NaN (R² if all targets are equal, for example).
            best = now.best_score is None or reached > now.best_score or equal
        epoch, seconds = now.epoch + 1, now.seconds + time.monotonic() - self.clock
        self.clock = time.monotonic()
        record = {
            "epoch": epoch,
            "step": now.step,
            "seconds": round(seconds, 3),
            "train": train,
            "validation": {name: value for name, value in validation.items() if name != "confusion"},
        }
        after = Snapshot(
            now.learner,
            epoch=epoch,
            step=now.step,
            best_epoch=epoch if best else now.best_epoch,
            best_score=(reached if math.isfinite(reached) else None) if best else now.best_score,
            best_loss=(loss if math.isfinite(loss) else None) if best else now.best_loss,
            seconds=seconds,
        )
        # If interrupted between these writes, the epoch is repeated identically from the last checkpoint.
        if best and is_first():
            header = {"epoch": epoch, "monitor": self.monitor, "score": validation.get(self.monitor)}
            save_checkpoint(self.folder / BEST, self.id, header, (now.learner.model, now.learner.state))
        if is_first():
            append_line(self.folder / METRICS, self.id, record)
        self.save(after)
        self.snapshot = after
        self.report(Progress(epoch, self.config.epochs, now.batch, len(self.batches), train["loss"], record, best))

    def step(self, now: Snapshot, batch: Any) -> Snapshot:
        """Return the snapshot after one more step, or raise if a number is not finite."""
        where = f"step {now.step + 1} (epoch {now.epoch + 1}, batch {now.batch + 1})"
        try:
            learner, (cost, count, slope, outputs) = train_step(
                self.settings,
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
            raise self.explained(where, error) from error
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

    def explained(self, where: str, error: Exception) -> Exception:
        """Return our error for a run-time error of a compiled program."""
        why = said(error)
        if why.startswith("out of memory"):
            return RunError(why)
        # Drop the remedy of the library: it is about arguments of `solve`, which a config does not have.
        return self.diverged(where, why.partition(". ")[0].removesuffix("."))

    def diverged(self, where: str, what: str) -> TrainingDiverged:
        rate, clip = self.config.optimiser.learning_rate, self.config.optimiser.clip
        clipping = "set optimiser.clip" if clip is None else f"lower optimiser.clip (it is {clip:g})"
        return TrainingDiverged(
            f"Training diverged at {where}: {what}. Begin another run with a lower learning rate (it is {rate:g}), or "
            f"{clipping}. The last checkpoint in {self.folder} stays, but resuming from it would diverge here again."
        )

    def tell(self) -> None:
        """Report progress within an epoch."""
        now = self.snapshot
        loss = now.cost / max(now.count, 1)
        self.report(Progress(now.epoch + 1, self.config.epochs, now.batch, len(self.batches), loss))

    def save(self, snapshot: Snapshot | None = None) -> None:
        """Write the checkpoint to resume from."""
        now = self.snapshot if snapshot is None else snapshot
        if is_first():
            save_checkpoint(self.folder / LAST, self.id, now.header(), now.learner)
        self.saved = time.monotonic()

    def scores(self, name: str, learner: Any) -> dict[str, Any]:
        """Return the metrics of a model on a split, or raise if its outputs are not finite."""
        split, where = self.prepared.splits[name], f"step {self.snapshot.step}, on the {name} cases"
        try:
            outputs = predict(learner.model, learner.state, split, self.size, self.shared, self.everywhere)
        except RUNTIME_ERRORS as error:
            raise self.explained(where, error) from error
        wrong = ~np.isfinite(outputs).reshape(len(outputs), -1).all(1)
        if wrong.any():
            raise self.diverged(where, f"{wrong.sum()} of {len(outputs)} outputs of the model are not finite")
        outputs = in_units(outputs, split, self.split_up, self.config)
        return score(self.prepared, split, outputs, self.config, self.split_up)

    def finish(self) -> None:
        """Score the best model and write the results."""
        learner = self.snapshot.learner
        barrier("the best model is written")
        header, (model, state) = read_best(self.folder, self.id, learner)
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
            "validation": self.scores("validation", best) if self.prepared.validation else {},
            constant: baseline(self.prepared, self.prepared.test, self.config, self.split_up),
        }
        if is_first():
            write_json(self.folder / RESULTS, seal(results, self.id))
