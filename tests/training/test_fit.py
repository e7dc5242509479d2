"""Runs: exact resume, atomic files, refused arguments, early stopping, and scores."""

import dataclasses
import itertools
import json
import os
import re
import resource
import shutil

import jax
import numpy as np
import pytest

import echograd as eg
from echograd.workbench.training import Config, Network, Optimiser, Run, TrainingDiverged, _files, fit
from waves import SMALL, Killed, numbers, smaller, sums, waves

# A run has its own precision: float64 around it or not, it is the same.
pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]
DATA = waves()
FILES = ("config.json", "metrics.jsonl", "last.eqx", "best.eqx", "results.json")


class After:
    """A progress callback that ends the run after some calls."""

    def __init__(self, calls, how):
        self.left, self.how = calls, how

    def __call__(self, progress):
        self.left -= 1
        if self.left < 0:
            raise self.how


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    fit(SMALL, DATA, out=folder)
    return folder


@pytest.mark.fast
@pytest.mark.both_precisions
def test_what_a_run_leaves(unbroken):
    run = Run.open(unbroken, DATA)
    assert run.config == SMALL
    assert run.versions.keys() == {"echograd", "jax", "dtype", "device"}
    history = run.history()
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert [record["step"] for record in history] == [3, 6, 9]
    assert history[0]["train"].keys() >= {"loss", "accuracy", "balanced_accuracy", "f1"}
    assert history[0]["validation"].keys() == {"loss", "accuracy", "balanced_accuracy", "f1"}
    results = run.results
    assert results["classes"] == ["slow", "fast"]
    assert np.sum(results["test"]["confusion"]) == 10
    assert results["majority"]["balanced_accuracy"] == 0.5
    assert results["majority"].keys() == results["test"].keys()
    # Of equal scores the lower loss decides, and then the earlier epoch.
    best = max(
        history,
        key=lambda record: (
            record["validation"]["balanced_accuracy"],
            -record["validation"]["loss"],
            -record["epoch"],
        ),
    )
    assert results["best_epoch"] == best["epoch"]
    for key, value in best["validation"].items():
        assert results["validation"][key] == value
    assert run.evaluate("test") == results["test"]
    logits = run.predict("test")
    assert logits.shape == (10, 2)
    assert np.mean(logits.argmax(1) == DATA.test.targets) == results["test"]["accuracy"]
    assert run.finished
    assert "finished" in repr(run)
    with pytest.raises(ValueError, match="choose one of train, validation, test"):
        run.predict("tests")


def test_the_same_config_gives_the_same_numbers(unbroken, tmp_path):
    fit(SMALL, DATA, out=tmp_path / "again")
    assert numbers(tmp_path / "again") == numbers(unbroken)
    fit(smaller(seed=1), DATA, out=tmp_path / "other")
    assert numbers(tmp_path / "other") != numbers(unbroken)


# One call a step and one at the end of an epoch of three: 1 and 5 are within an epoch, 4 and 8 at an end.
@pytest.mark.parametrize("calls", [0, 1, 4, 5, 8, 11])
@pytest.mark.parametrize("minutes", [0.0, 5.0])
def test_a_killed_run_resumes_exactly(unbroken, tmp_path, calls, minutes):
    with pytest.raises(Killed):
        fit(SMALL, DATA, out=tmp_path / "run", progress=After(calls, Killed), checkpoint_minutes=minutes)
    assert not Run.open(tmp_path / "run").finished
    fit(SMALL, DATA, out=tmp_path / "run", resume=True)
    assert numbers(tmp_path / "run") == numbers(unbroken)


def test_an_interrupted_run_goes_on_where_it_was(unbroken, tmp_path):
    steps = []
    for calls in (5, 2):
        with pytest.raises(KeyboardInterrupt):
            fit(SMALL, DATA, out=tmp_path / "run", resume=calls == 2, progress=After(calls, KeyboardInterrupt))
    fit(SMALL, DATA, out=tmp_path / "run", resume=True, progress=lambda p: steps.append((p.epoch, p.batch)))
    assert numbers(tmp_path / "run") == numbers(unbroken)
    # Two steps and an epoch's end more were done: nothing is done twice.
    assert steps[0] == (3, 2)


@pytest.mark.float64_only  # a run has its own precision, so the other leg would show the same
def test_a_run_killed_at_any_write_resumes_exactly(unbroken, tmp_path, monkeypatch):
    """What a file needs of the system is to be flushed to the disk and renamed; death comes before each of these."""
    for count in itertools.count():
        folder, left = tmp_path / f"{count}", [count]

        def deadly(real, left=left):
            def call(*arguments):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return real(*arguments)

            return call

        with monkeypatch.context() as patch:
            for name in ("fsync", "replace"):
                patch.setattr(os, name, deadly(getattr(os, name)))
            try:
                fit(SMALL, DATA, out=folder)
            except Killed:
                pass
            else:
                break
        fit(SMALL, DATA, out=folder, resume=(folder / "config.json").is_file())
        assert numbers(folder) == numbers(unbroken), count
    assert count > 20


def test_a_torn_line_of_metrics_is_mended(unbroken, tmp_path):
    with pytest.raises(Killed):
        fit(SMALL, DATA, out=tmp_path / "run", progress=After(5, Killed))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')
    assert len(Run.open(tmp_path / "run").history()) == 1
    fit(SMALL, DATA, out=tmp_path / "run", resume=True)
    assert numbers(tmp_path / "run") == numbers(unbroken)


def test_a_full_disk_leaves_the_checkpoint_as_it_was(unbroken, tmp_path):
    """A limit on the file size simulates a full disk: writes fail half-way with an OSError."""
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        fit(SMALL, DATA, out=folder, progress=After(5, Killed))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["last.eqx"]) // 2, hard))
    try:
        with pytest.raises(OSError, match=r"last\.eqx could not be written.*is intact.*resume"):
            fit(SMALL, DATA, out=folder, resume=True, checkpoint_minutes=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    fit(SMALL, DATA, out=folder, resume=True)
    assert numbers(folder) == numbers(unbroken)


def test_a_full_disk_under_the_metrics_is_told(unbroken, tmp_path):
    folder = tmp_path / "run"

    def fill(_):
        if not metrics.is_symlink():
            metrics.symlink_to("/dev/full")

    metrics = folder / "metrics.jsonl"
    with pytest.raises(OSError, match=r"metrics\.jsonl could not be written.*resume"):
        fit(SMALL, DATA, out=folder, progress=fill)
    metrics.unlink()
    fit(SMALL, DATA, out=folder, resume=True)
    assert numbers(folder) == numbers(unbroken)


def test_a_folder_that_is_gone_is_told(unbroken, tmp_path):
    def move(progress):
        if progress.epoch == 2 and folder.is_dir():
            folder.rename(tmp_path / "elsewhere")

    folder = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match=r"its folder is gone. Put it back and resume"):
        fit(SMALL, DATA, out=folder, progress=move)
    assert not folder.exists()
    fit(SMALL, DATA, out=tmp_path / "elsewhere", resume=True)
    assert numbers(tmp_path / "elsewhere") == numbers(unbroken)


def test_a_folder_that_may_not_be_written(unbroken, tmp_path, monkeypatch):
    """A finished run is opened. An unfinished run is refused before any computation."""
    folder = shutil.copytree(unbroken, tmp_path / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)  # permissions do not bind the superuser
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert fit(SMALL, DATA, out=folder, resume=True).finished
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "results.json").unlink()
    with pytest.raises(
        PermissionError, match=r"may not be read and written by this user. Remove the obstacle, and resume"
    ):
        fit(SMALL, DATA, out=folder, resume=True, progress=lambda _: pytest.fail("it has begun"))
    with pytest.raises(PermissionError, match="Choose another out="):
        fit(SMALL, DATA, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("metrics.jsonl", b"garbage\n", r"metrics\.jsonl, line 1 .*Restore the file, or delete it"),
        ("metrics.jsonl", b'{"step": 3}\n', r"metrics\.jsonl, line 1 .*no identity"),
        ("metrics.jsonl", b"", r"metrics\.jsonl ends with epoch 0, but 3 epochs are finished: it is truncated"),
        ("config.json", b"[]", r"config\.json cannot be read.*Restore the file"),
        ("config.json", b'{"dataset": "waves", "versions": {}, "data": {}}', r"config\.json cannot be read"),
        ("last.eqx", b"", r"last\.eqx is not a checkpoint"),
        ("results.json", b"{", r"results\.json does not hold.*resume"),
        ("results.json", b"{}", r"results\.json does not hold.*no identity.*resume"),
        ("results.json", b"[]", r"results\.json does not hold.*resume"),
        *((name, b"[" * 100_000 + b"\n", rf"{name}.*nested too deep") for name in FILES),
    ],
)
def test_a_file_that_was_changed_is_named(unbroken, tmp_path, name, text, complaint):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / name).write_bytes(text)
    with pytest.raises(ValueError, match=complaint):
        read(fit(SMALL, DATA, out=folder, resume=True))


def read(run):
    """Read all files of a run."""
    return run.results, run.history(), run.model


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """Another run of the same config and data: every file has the same shapes, and is of another run."""
    folder = tmp_path_factory.mktemp("twin") / "run"
    fit(SMALL, DATA, out=folder)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_run_is_refused_by_its_name(unbroken, twin, tmp_path, name):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    shutil.copy(twin / name, folder / name)
    # All others are foreign to a config; a folder that is copied as a whole is a run like any other.
    wanted = r"(last\.eqx|results\.json|metrics\.jsonl)" if name == "config.json" else re.escape(name)
    with pytest.raises(ValueError, match=rf"{wanted}.*belongs to run [0-9a-f]+, and config\.json to run [0-9a-f]+"):
        read(fit(SMALL, DATA, out=folder, resume=True))
    for other in FILES:
        shutil.copy(twin / other, folder / other)
    assert read(Run.open(folder, DATA))[1] == Run.open(twin).history()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.json", '"seed": 0', '"seed": 1'),
        ("metrics.jsonl", '"epoch": 2', '"epoch": 3'),
        ("results.json", '"accuracy": ', '"accuracy": 1'),
        ("last.eqx", '"step": 9', '"step": 8'),
    ],
)
def test_an_edited_number_is_noticed(unbroken, tmp_path, name, old, new):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    text = (folder / name).read_bytes()
    assert old.encode() in text
    (folder / name).write_bytes(text.replace(old.encode(), new.encode(), 1))
    with pytest.raises(ValueError, match=rf"{re.escape(name)}.*edited or damaged"):
        read(fit(SMALL, DATA, out=folder, resume=True))


def test_lines_of_metrics_that_are_missing_are_noticed(unbroken, tmp_path):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    path, lines = folder / "metrics.jsonl", (unbroken / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    for kept, complaint in ((lines[:2], "ends with epoch 2, but 3 epochs"), (lines[::2], "of epoch 3, after epoch 1")):
        path.write_bytes(b"".join(kept))
        for reading in (Run.open(folder).history, lambda: fit(SMALL, DATA, out=folder, resume=True)):
            with pytest.raises(ValueError, match=rf"metrics\.jsonl.*{complaint}.*delete it"):
                reading()
    path.unlink()
    assert fit(SMALL, DATA, out=folder, resume=True).history() == []


def test_the_best_model_of_another_epoch_is_refused(unbroken, tmp_path):
    """A file of the same run, of an earlier time."""
    early = tmp_path / "early"
    best = Run.open(unbroken).results["best_epoch"]
    longer = smaller(epochs=8)
    with pytest.raises(Killed):
        fit(longer, DATA, out=early, progress=After(4, Killed))
    first = (early / "best.eqx").read_bytes()
    run = fit(longer, DATA, out=early, resume=True)
    assert run.results["best_epoch"] > 1, best
    (early / "best.eqx").write_bytes(first)
    with pytest.raises(ValueError, match=r"best\.eqx holds the model of epoch 1, but results\.json is about"):
        _ = Run.open(early, DATA).model
    (early / "results.json").unlink()
    with pytest.raises(ValueError, match=r"best\.eqx holds the model of epoch 1, but according to last\.eqx"):
        fit(longer, DATA, out=early, resume=True)


@pytest.mark.parametrize("name", ["last.eqx", "best.eqx"])
def test_a_damaged_checkpoint_is_refused_and_the_run_can_be_had_again(unbroken, tmp_path, name):
    """One flipped bit, wherever it is: in the header, in the arrays, in the last byte; and a missing end."""
    folder = shutil.copytree(unbroken, tmp_path / "run")
    (folder / "results.json").unlink()
    path = folder / name
    whole = path.read_bytes()
    for place in (whole.index(b'"epoch"') + 9, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=rf"{name} is not a checkpoint of this run: .*checksum.*delete it"):
            fit(SMALL, DATA, out=folder, resume=True)
    path.write_bytes(whole[:-64])
    with pytest.raises(ValueError, match="is not a checkpoint"):
        fit(SMALL, DATA, out=folder, resume=True)
    path.unlink()
    if name == "best.eqx":
        with pytest.raises(FileNotFoundError, match=r"best\.eqx is gone.*delete last\.eqx"):
            fit(SMALL, DATA, out=folder, resume=True)
        (folder / "last.eqx").unlink()
    fit(SMALL, DATA, out=folder, resume=True)
    assert numbers(folder) == numbers(unbroken)


def test_the_last_model_is_not_taken_for_the_best(unbroken, tmp_path):
    """The last checkpoint has the same arrays, followed by those of the optimiser."""
    folder = shutil.copytree(unbroken, tmp_path / "run")
    shutil.copy(folder / "last.eqx", folder / "best.eqx")
    with pytest.raises(
        ValueError, match=r"best\.eqx is not a checkpoint .*its arrays take .* bytes, and those of this"
    ):
        Run.open(folder, DATA).predict()


def test_two_runs_in_one_folder_are_refused(unbroken, tmp_path):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    with _files.folder_lock(folder), pytest.raises(RuntimeError, match="another process is training in"):
        fit(SMALL, DATA, out=folder, resume=True)
    fit(SMALL, DATA, out=folder, resume=True)


def test_an_existing_folder_is_not_overwritten(unbroken, tmp_path):
    before = numbers(unbroken)
    with pytest.raises(FileExistsError, match=r"a training run.*--out.*--resume"):
        fit(SMALL, DATA, out=unbroken)
    assert numbers(unbroken) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        fit(SMALL, DATA, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_resuming_something_else_is_refused(unbroken, tmp_path):
    with pytest.raises(FileNotFoundError, match="no training run to resume"):
        fit(SMALL, DATA, out=tmp_path / "nothing", resume=True)
    with pytest.raises(ValueError, match=r"optimiser\.learning_rate is 0\.01 there and 0\.02 here"):
        fit(smaller(optimiser=Optimiser(learning_rate=2e-2)), DATA, out=unbroken, resume=True)
    with pytest.raises(ValueError, match="other cases"):
        fit(SMALL, waves(seed=1), out=unbroken, resume=True)
    with pytest.raises(ValueError, match="other cases"):
        Run.open(unbroken, waves(seed=1))
    before = numbers(unbroken)
    assert fit(SMALL, DATA, out=unbroken, resume=True).results == Run.open(unbroken).results
    assert numbers(unbroken) == before


def test_a_changed_version_is_told(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        fit(SMALL, DATA, out=tmp_path / "run", progress=After(0, Killed))
    there = jax.__version__
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    with pytest.warns(UserWarning, match=rf"jax is '{there}' there and '0\.0\.1' here"):
        fit(SMALL, DATA, out=tmp_path / "run", resume=True)


@pytest.mark.both_precisions
def test_nothing_recompiles(tmp_path):
    """Neither in later epochs, nor in the ragged last batch, nor after resuming."""
    compiled = []

    def count(name, seconds, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    after = []
    config = smaller(batch_size=7)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        with pytest.raises(Killed):
            fit(
                config,
                DATA,
                out=tmp_path / "run",
                progress=lambda p: after.append(len(compiled)) if p.epoch < 3 else After(0, Killed)(p),
            )
        assert after[0] > 0
        # The first epoch compiles the step and, at its end, the predictions.
        assert len(set(after[:3])) == 1
        assert len(set(after[3:])) == 1
        fit(config, DATA, out=tmp_path / "run", resume=True)
        assert len(compiled) <= after[-1] + 1, "more than the results' own programs"
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def test_training_stops_when_patience_ends(tmp_path):
    config = smaller(epochs=12, patience=2)
    history = fit(config, DATA, out=tmp_path / "run").history()
    best = max(history, key=lambda record: (record["validation"]["balanced_accuracy"], -record["epoch"]))
    assert len(history) == min(12, best["epoch"] + 2) < 12


def test_a_nan_stops_training_and_leaves_the_last_checkpoint(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        fit(smaller(epochs=4), DATA, out=folder, progress=After(4, Killed))
    good = (folder / "last.eqx").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        from echograd.workbench.training import _trainer

        real = _trainer.on_device

        def broken(batch, *place):
            return real(batch._replace(inputs=batch.inputs * np.float32(np.nan)), *place)

        patch.setattr(_trainer, "on_device", broken)
        with pytest.raises(TrainingDiverged, match=r"(?s)step 4 \(epoch 2, batch 1\).*learning rate \(it is 0\.01\)"):
            fit(smaller(epochs=4), DATA, out=folder, resume=True)
    assert (folder / "last.eqx").read_bytes() == good


@pytest.mark.float64_only  # a run has its own precision, so the other leg would show the same
def test_damped_oscillators_train_alike(tmp_path):
    """By reversed errors and by backprop; the best model is loaded again; a whole case is remembered at first."""
    losses = {}
    for gradient in ("echo", "backprop"):
        run = fit(smaller(model="damped", gradient=gradient, precision="float64"), DATA, out=tmp_path / gradient)
        losses[gradient] = [record["train"]["loss"] for record in run.history()]
    np.testing.assert_allclose(losses["echo"], losses["backprop"], rtol=1e-9)
    unit = Run.open(tmp_path / "echo").model.blocks[0].unit
    assert isinstance(unit, eg.nn.DampedHRU)
    assert isinstance(unit.gradient, eg.Reciprocal)
    assert np.all((unit.system.decay > 0.5 / DATA.length) & (unit.system.decay < 0.2))


@pytest.mark.float64_only  # a run has its own precision, so the other leg would show the same
def test_echo_and_backprop_train_alike(tmp_path):
    """Whole runs by either gradient agree to rounding, and do not with a finite nudge."""
    losses = {}
    for gradient in ("echo", "backprop"):
        config = smaller(model="nonlinear", gradient=gradient, precision="float64")
        history = fit(config, DATA, out=tmp_path / gradient).history()
        losses[gradient] = [record["train"]["loss"] for record in history]
    np.testing.assert_allclose(losses["echo"], losses["backprop"], rtol=1e-9)
    run = fit(
        smaller(model="nonlinear", nudge="one-sided", beta=0.1, precision="float64"), DATA, out=tmp_path / "finite"
    )
    assert isinstance(run.model.blocks[0].unit.gradient.nudge, eg.OneSided)
    assert abs(run.history()[-1]["train"]["loss"] / losses["echo"][-1] - 1) > 1e-8


@pytest.mark.both_precisions
def test_precision_is_the_runs_own(tmp_path, unbroken):
    """A run computes in its own precision and does not change the global setting."""
    before = jax.numpy.zeros(1).dtype
    run = fit(smaller(model="nonlinear", gradient="backprop", precision="float64"), DATA, out=tmp_path / "double")
    assert jax.numpy.zeros(1).dtype == before
    assert run.model.encoder.weight.dtype == "float64"
    assert run.predict("test").dtype == "float64"
    assert Run.open(unbroken).model.encoder.weight.dtype == "float32"


def test_batch_norm_keeps_its_statistics(tmp_path):
    config = smaller(network=Network(hidden=4, units=3, blocks=1, norm="batch"), epochs=2)
    fit(config, DATA, out=tmp_path / "a")
    with pytest.raises(Killed):
        fit(config, DATA, out=tmp_path / "b", progress=After(5, Killed), checkpoint_minutes=0.0)
    fit(config, DATA, out=tmp_path / "b", resume=True)
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    statistics = jax.tree.leaves(Run.open(tmp_path / "a").state)
    assert any(np.any(np.asarray(leaf)) for leaf in statistics)


def test_a_rare_class_is_learned(tmp_path):
    """One case in eight is of the class; the majority baseline is right in seven of eight and learns nothing."""
    data = waves((64, 32, 64), rare=1 / 8, equal=True)
    config = Config(
        "waves",
        network=Network(hidden=8, units=8, blocks=1, dropout=0.0),
        optimiser=Optimiser(learning_rate=2e-2),
        epochs=8,
        batch_size=16,
    )
    results = fit(config, data, out=tmp_path / "run").results
    assert results["majority"]["accuracy"] == 7 / 8
    assert results["majority"]["balanced_accuracy"] == 0.5
    assert results["test"]["balanced_accuracy"] > 0.9


def test_class_weights_make_rare_cases_count(tmp_path):
    """The first epoch's loss of an untrained model: with weights it is the mean of the classes' means."""
    losses = {}
    for weights in (True, False):
        config = smaller(class_weights=weights, epochs=1, optimiser=Optimiser(learning_rate=1e-12, warmup=0.0))
        run = fit(config, DATA, out=tmp_path / str(weights))
        losses[weights] = run.history()[0]["validation"]["loss"]
        logits, targets = run.predict("validation").astype(float), DATA.validation.targets
        surprise = np.log(np.exp(logits).sum(1)) - logits[np.arange(12), targets]
    by_class = [surprise[targets == label].mean() for label in (0, 1)]
    counts, train = np.bincount(targets), np.bincount(DATA.train.targets)
    share = counts / train  # not the same fractions as in training, so not exactly a half each
    assert losses[False] == pytest.approx(surprise.mean(), rel=1e-5)
    assert losses[True] == pytest.approx(share @ by_class / share.sum(), rel=1e-5)
    assert abs(losses[True] - losses[False]) > 1e-4


@pytest.mark.parametrize("times", [None, 4])
def test_regression(tmp_path, times):
    data = sums(times=times, cases=40)
    config = smaller(epochs=25, optimiser=Optimiser(learning_rate=3e-2), network=Network(hidden=8, units=8, blocks=1))
    run = fit(config, data, out=tmp_path / "run")
    results = run.results
    assert results["test"]["r2"] > 0.5 > 0.1 > results["mean"]["r2"]
    predictions = run.predict("test")
    assert predictions.shape == data.test.targets.shape
    assert results["test"]["mse"] == pytest.approx(np.mean((predictions - data.test.targets) ** 2), rel=1e-4)
    best = min(run.history(), key=lambda record: record["validation"]["loss"])
    assert results["best_epoch"] == best["epoch"]


def test_a_set_without_validation_gets_one(tmp_path):
    data = dataclasses.replace(DATA, validation=None)
    run = fit(smaller(epochs=1, validation_fraction=0.4), data, out=tmp_path / "run")
    assert len(run.dataset.validation) + len(run.dataset.train) == 21
    assert len(run.dataset.validation) == pytest.approx(8, abs=1)
    assert len(run.predict("validation")) == len(run.dataset.validation)


@pytest.mark.fast
def test_a_config_survives_its_file():
    config = smaller(network=Network(angles=(0.1, 0.5)), patience=3, nudge="one-sided", beta=1e-3)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert Config.from_dict({"dataset": "x"}) == Config("x")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "'dataset' is missing"),
        ({"dataset": "x", "epoch": 3}, "Did you mean 'epochs'"),
        ({"dataset": "x", "network": {"hiden": 3}}, "no setting 'network.hiden'. Did you mean 'network.hidden'"),
        ({"dataset": "x", "epochs": 3.5}, "epochs=3.5; it must be a Python integer"),
        ({"dataset": "x", "epochs": True}, "epochs=True; it must be a Python integer"),
        ({"dataset": "x", "epochs": 0}, "epochs=0; it must be a Python integer of at least 1"),
        ({"dataset": "x", "model": "cubic"}, "choose one of 'linear', 'nonlinear'"),
        ({"dataset": "x", "network": 3}, "a group of settings"),
        ({"dataset": "x", "network": {"angles": [0.1]}}, "2 numbers"),
        ({"dataset": "x", "optimiser": {"learning_rate": -1}}, "must be positive"),
        ({"dataset": "x", "beta": 0.1}, "infinitesimal nudge has no size"),
        ({"dataset": "x", "gradient": "backprop", "nudge": "symmetric"}, "only an echo has a nudge"),
    ],
)
def test_a_wrong_config_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Config.from_dict(values)


def test_a_config_that_does_not_fit_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="monitor='r2' is not a metric of classification"):
        fit(smaller(monitor="r2"), DATA, out=tmp_path / "run")
    with pytest.raises(ValueError, match="for the data set 'elsewhere'"):
        fit(smaller(dataset="elsewhere"), DATA, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(FileNotFoundError, match="no training run"):
        Run.open(tmp_path)
