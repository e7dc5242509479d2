"""Small data sets and configs that the tests of training share."""

import dataclasses
import os
import subprocess
import sys

import numpy as np

from echograd.workbench.data import Dataset, Split
from echograd.workbench.training import Config, Network, Optimiser, Run

SMALL = Config(
    "waves",
    network=Network(hidden=4, units=3, blocks=1),
    optimiser=Optimiser(learning_rate=1e-2),
    epochs=3,
    batch_size=8,
)


def series(rng, label, steps):
    """A slow wave (class 0) or a fast one (class 1), in noise."""
    phase, angle = rng.uniform(0, 2 * np.pi), (0.3, 1.2)[label]
    wave = np.sin(angle * np.arange(steps) + phase)
    return np.stack([wave, rng.normal(size=steps)], axis=1) + 0.1 * rng.normal(size=(steps, 2))


def waves(cases=(21, 12, 10), *, rare=0.3, equal=False, seed=0):
    """Two classes of waves of unequal lengths, the second one rare; 21 cases leave a ragged last batch of 8."""
    rng = np.random.default_rng(seed)

    def split(count):
        targets = (np.arange(count) < max(1, round(rare * count))).astype(np.int32)
        lengths = np.full(count, 24) if equal else rng.integers(12, 25, count)
        return Split.from_series(
            [series(rng, int(label), n) for label, n in zip(targets, lengths, strict=True)], targets, length=24
        )

    train, validation, test = map(split, cases)
    about = {"description": "", "source": "", "licence": ""}
    names = ("slow", "fast")
    return Dataset("waves", train, validation, test, "classification", names, ("wave", "noise"), None, **about)


def sums(*, times=None, cases=20, seed=0):
    """Regression: the mean of the input, over the case or over each of a number of spans of time."""
    rng = np.random.default_rng(seed)

    def split():
        inputs = rng.normal(size=(cases, 24, 2)).astype(np.float32) + rng.normal(size=(cases, 1, 1)).astype(np.float32)
        lengths = np.full(cases, 24, np.int32)
        if times is None:
            targets = 70 + 10 * inputs[:, :, 0].mean(1)
        else:
            targets = 70 + 10 * inputs[:, :, :1].reshape(cases, times, -1).mean(2)[:, :, None]
        return Split(inputs, targets.astype(np.float32), lengths)

    about = {"description": "", "source": "", "licence": ""}
    return Dataset("waves", split(), split(), split(), "regression", (), ("a", "b"), None, **about)


def smaller(**changes):
    """Return the small config with changes."""
    return dataclasses.replace(SMALL, **changes)


class Killed(BaseException):
    """What `kill -9` is to a test: nothing catches it, and nothing is saved on the way out."""


def killed_in_epoch_3(progress):
    """Show no progress, and die soon."""
    if progress.epoch == 3:
        raise Killed


def losses(folder):
    return [(record["train"]["loss"], record["validation"]["loss"]) for record in Run.open(folder).history()]


def start(program, *arguments, **environment):
    """Start a Python process that imports what the tests do and compiles with the least effort."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "XLA_FLAGS": "",
            **environment,
        },
    )


def answers(*processes):
    """Return what each process has printed and complained of, when all are through; none outlives this."""
    try:
        return [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()


def numbers(folder):
    """Everything that must not depend on interruptions: metrics but for the time, results, and all arrays."""
    history = [
        {key: value for key, value in record.items() if key != "seconds"} for record in Run.open(folder).history()
    ]
    results = Run.open(folder).results
    del results["seconds"]
    arrays = [(folder / name).read_bytes().split(b"\n", 1)[1] for name in ("last.eqx", "best.eqx")]
    return history, results, arrays
