"""The recipe for any data set, and the settings it is made of: windows, smoothing, rates, and no validation cases."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest

from echograd.workbench.data import Split
from echograd.workbench.training import Network, Optimiser, fit, initial_model, recipe
from echograd.workbench.training._learner import costs, cropped, on_device
from waves import SMALL, Killed, sums, waves

# A run has its own precision: float64 around it or not, it is the same.
pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]
DATA = dataclasses.replace(waves(), validation=None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on all training cases, with random windows."""
    return fit(settings(), DATA, out=tmp_path_factory.mktemp("whole") / "run")


def settings():
    small = Network(hidden=4, units=4, norm="batch", pooling="mean_max_deviation", patch=2, taps=2, bidirectional=True)
    return recipe(DATA, epochs=4, network=small, smoothing=0.1)


def test_without_validation_cases_the_last_model_is_kept(whole):
    assert len(whole.dataset.train) == len(DATA.train)
    assert whole.results["best_epoch"] == whole.results["epochs"] == 4
    assert whole.results["validation"] == {}
    assert [record["validation"] for record in whole.history()] == [{}] * 4
    assert whole.history()[-1]["train"]["loss"] < whole.history()[0]["train"]["loss"]
    assert whole.evaluate() == whole.results["test"]


def test_a_killed_run_with_random_windows_resumes_exactly(whole, tmp_path):
    calls = 0

    def kill(_):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise Killed

    with pytest.raises(Killed):
        fit(settings(), DATA, out=tmp_path / "run", progress=kill, checkpoint_minutes=0)
    run = fit(settings(), DATA, out=tmp_path / "run", resume=True)
    for a, b in zip(*(jax.tree.leaves(eqx.filter(r.model, eqx.is_array)) for r in (run, whole)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_windows_are_parts_of_their_cases(new_key):
    lengths = (40, 7, 1, 25)
    series = [np.stack([np.arange(n), np.full(n, i)], 1).astype(np.float32) for i, n in enumerate(lengths)]
    split = Split.from_series(series, np.zeros(4, np.int32))
    from echograd.workbench.data import Batches

    batch = on_device(Batches(split, 4, shuffle=False).batch(0, 0))
    starts = set()
    for _ in range(50):
        window = cropped(batch, 0.6, new_key())
        assert window.inputs.shape == (4, 24, 2)
        for i, n in enumerate(lengths):
            row, valid = np.asarray(window.inputs[i]), np.asarray(window.mask[i])
            kept = int(np.ceil(np.float32(0.6) * n))
            assert valid.sum() == kept
            assert valid[:kept].all()
            assert (row[:kept, 1] == i).all()
            np.testing.assert_array_equal(np.diff(row[:kept, 0]), 1)
            assert row[0, 0] >= 0
            assert row[kept - 1, 0] <= n - 1
            starts |= {int(row[0, 0])} if i == 0 else set()
    assert {0, 16} <= starts <= set(range(17))


def test_smoothed_costs_are_a_mixture(new_key):
    logits = jax.random.normal(new_key(), (5, 3))
    targets = jax.numpy.asarray([0, 1, 2, 0, 1])
    log = np.asarray(jax.nn.log_softmax(logits))
    weights = 0.3 / 3 + 0.7 * np.eye(3)[np.asarray(targets)]
    np.testing.assert_allclose(costs(logits, targets, 0.3), -(weights * log).sum(1), rtol=1e-6)


def test_oscillators_at_rate_zero_keep_their_constants(tmp_path):
    config = dataclasses.replace(SMALL, epochs=1, optimiser=Optimiser(oscillator_rate=0.0))
    trained = fit(config, waves(), out=tmp_path / "run").model
    with jax.enable_x64(False):
        start, _ = initial_model(config, waves())
    for before, after in zip(start.blocks, trained.blocks, strict=True):
        np.testing.assert_array_equal(before.unit.angle, after.unit.angle)
        np.testing.assert_array_equal(before.unit.log_step, after.unit.log_step)
        assert np.abs(np.asarray(before.unit.read_in - after.unit.read_in)).max() > 1e-5


def test_the_recipe_fits_the_size_of_the_set():
    small = recipe(DATA)
    assert small.model == "damped"
    assert small.validation_fraction == 0
    assert small.epochs * len(DATA.train) >= 1000 * small.batch_size
    long = recipe(stretched(16))
    assert long.network.patch > small.network.patch
    assert DATA.length * 16 / long.network.patch < 400
    many = recipe(dataclasses.replace(DATA, train=DATA.train.take(np.arange(600) % len(DATA.train))))
    assert many.validation_fraction == 0.1
    assert many.epochs < small.epochs
    assert recipe(DATA, seed=3, crop=1.0) == dataclasses.replace(small, seed=3, crop=1.0)
    steps = recipe(sums())
    assert steps.network.patch == 1
    assert steps.crop == (1.0 if sums().train.targets.ndim == 3 else 0.8)


def stretched(times):
    def longer(split):
        return dataclasses.replace(
            split, inputs=np.repeat(split.inputs, times, 1), lengths=(split.lengths * times).astype(np.int32)
        )

    return dataclasses.replace(DATA, train=longer(DATA.train), test=longer(DATA.test))
