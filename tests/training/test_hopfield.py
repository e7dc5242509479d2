"""A Hopfield network trained by equilibrium propagation, in the same loop as everything else."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from echograd.workbench import report
from echograd.workbench.data import Batches
from echograd.workbench.training import Config, Network, Optimiser, Run, batch_loss, fit, initial_model
from waves import numbers, sums, waves

# A run has its own precision: float64 around it or not, it is the same.
pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]
DATA = waves((60, 20, 20), rare=0.5, equal=True)
HOPFIELD = Config(
    "waves",
    model="hopfield",
    nudge="symmetric",
    network=Network(units=24, blocks=1),
    optimiser=Optimiser(learning_rate=1e-2),
    epochs=6,
    batch_size=12,
)


class Stop(BaseException):
    """Ends a run without saving anything."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hopfield") / "run"
    fit(HOPFIELD, DATA, out=folder)
    return folder


@pytest.mark.both_precisions
def test_it_learns_and_is_read_back(unbroken):
    run = Run.open(unbroken, DATA)
    history = run.history()
    assert history[-1]["train"]["loss"] < 0.7 * history[0]["train"]["loss"]
    assert run.predict("test").shape == (20, 2)
    assert run.evaluate("test") == run.results["test"]
    assert isinstance(run.model, eg.nn.HopfieldClassifier)


def test_a_broken_run_goes_on_bit_for_bit(unbroken, tmp_path):
    def ends(progress):
        if progress.epoch == 3 and progress.batch == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(HOPFIELD, DATA, out=tmp_path / "run", progress=ends)
    fit(HOPFIELD, DATA, out=tmp_path / "run", resume=True)
    assert numbers(tmp_path / "run") == numbers(unbroken)


def test_a_report_is_without_trajectories(unbroken, tmp_path, monkeypatch):
    monkeypatch.setattr("echograd.plot.png", lambda _: b"png")
    text = report.write(Run.open(unbroken, DATA), tmp_path).read_text(encoding="utf-8")
    for words in ("A Hopfield network (1 hidden layer of 24 units", "equilibrium propagation", "Masking", "no echo"):
        assert words in text
    for words in ("What the oscillators became", "What it costs", "Gradient”"):
        assert words not in text


@pytest.mark.float64_only
def test_its_gradient_is_that_of_the_loss():
    """With a strength so small that no unit comes to or off a bound; and the strength is that of one case."""
    config = dataclasses.replace(HOPFIELD, precision="float64", beta=1e-4)
    batch = Batches(DATA.train, 12).batch(0, 0)
    found, exact = [], []
    for gradient, into in (("echo", found), ("backprop", exact)):
        nudge = "symmetric" if gradient == "echo" else "infinitesimal"
        beta = config.beta if gradient == "echo" else None
        model, state = initial_model(dataclasses.replace(config, gradient=gradient, nudge=nudge, beta=beta), DATA)
        model = eqx.tree_at(lambda m: m.net.biases[-1], model, jnp.full(2, 0.3))
        model = eqx.tree_at(lambda m: m.solver, model, eg.LayerwiseRelaxation(max_steps=3000))
        slope = eqx.filter_grad(lambda m, state=state: batch_loss(DATA, m, state, batch))(model)
        into += jax.tree.leaves(slope)
    assert len(found) == len(exact) == 4
    for a, b in zip(found, exact, strict=True):
        assert np.linalg.norm(b) > 0
        assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)
    assert config.static_gradient_object().nudge.beta == pytest.approx(12 * 1e-4)


def test_what_it_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"bound do not respond.*--nudge symmetric"):
        Config("waves", model="hopfield")
    with pytest.raises(ValueError, match="classification only"):
        fit(dataclasses.replace(HOPFIELD, dataset="waves"), sums(), out=tmp_path / "run")
