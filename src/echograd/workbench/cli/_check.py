"""`echograd check`: compare echo gradients with backprop, parameter by parameter."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import tyro
from jaxtyping import Array, Float

from echograd import (
    ArgumentError,
    GradientReport,
    InitialValue,
    SeparableHamiltonian,
    check_gradients,
    equivalence,
    solve,
    systems,
)
from echograd.gradients import AbstractGradient

from ..data import Batches, Dataset, load
from ..training import Config, Network, batch_loss, initial_model
from ._main import FAILED
from ._tables import at_least, console, rich_table

_TOLERANCE = {"float64": 1e-9, "float32": 1e-3}


@dataclasses.dataclass(frozen=True)
class Check:
    """Compare echo gradients with backprop, parameter by parameter: of a chain of masses, and of a model on real data.

    An exact gradient has a relative error of rounding size, and a Taylor slope of 2. The exit code is 1 if the error of
    a parameter is larger than the tolerance. Errors of finite nudges are shown but do not change the exit code.

    Attributes:
        dataset: data set of the batch for the model.
        model: kind of the oscillators.
        nudge: kind of the nudge of the echo; only "infinitesimal" is exact.
        beta: size of a finite nudge; None scales it to the cotangents.
        precision: precision of all numbers.
        tolerance: largest relative error that passes; None is 1e-9 in float64 and 1e-3 in float32.
        hidden: hidden width of the model.
        units: number of oscillators in a block.
        blocks: number of blocks of the model.
        cases: number of cases in the batch.
        steps: number of steps of the chain.
        taylor: run the Taylor test.
        equivalence: instead, compare gradients of several systems by GLEP in Lagrangian variables with those by echoes
            in Hamiltonian variables. This test decides whether the two methods are the same.
        seed: seed of initial weights, data and directions.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[DATASET]")] = "ecg-rhythm-envelope"
    model: Literal["linear", "nonlinear", "damped"] = "linear"
    nudge: Literal["infinitesimal", "symmetric", "one-sided"] = "infinitesimal"
    beta: float | None = None
    precision: Literal["float32", "float64"] = "float64"
    tolerance: float | None = None
    hidden: int = 8
    units: int = 8
    blocks: int = 2
    cases: int = 4
    steps: int = 1000
    taylor: bool = True
    equivalence: bool = False
    seed: int = 0


class Chain(SeparableHamiltonian):
    r"""Masses between springs that harden, driven at one end.

    $$H = \sum_i \frac{p_i^2}{2 m_i} + \sum_i k_i \left( \tfrac12 d_i^2 + \tfrac14 d_i^4 \right) - u q_1, \qquad
    d_i = q_{i+1} - q_i$$

    Args:
        mass: $m$, shape (masses,).
        stiffness: $k$, shape (masses + 1,); the outer springs are fixed to walls.
    """

    mass: Float[Array, " masses"]
    stiffness: Float[Array, " springs"]

    def kinetic(self, t: Any, p: Float[Array, " masses"]) -> Float[Array, ""]:
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t: Any, q: Float[Array, " masses"], u: Float[Array, ""]) -> Float[Array, ""]:
        d = jnp.diff(jnp.pad(q, 1))
        return jnp.sum(self.stiffness * (d**2 / 2 + d**4 / 4)) - u * q[0]


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = tyro.cli(Check, args=argv, prog="echograd check")
    tolerance = _TOLERANCE[command.precision] if command.tolerance is None else command.tolerance
    if not 0 < tolerance < math.inf:
        raise ArgumentError(f"tolerance={tolerance:g}; it must be positive and finite.")
    for name in ("hidden", "units", "blocks", "cases", "steps"):
        at_least(name, getattr(command, name))
    out, failed = console(), False
    if command.equivalence:
        return _equivalence(tolerance if command.tolerance else 10 * tolerance, command.precision)
    dataset = load(command.dataset)  # a missing data set is reported before the computation
    with jax.enable_x64(command.precision == "float64"):
        config = Config(
            command.dataset,
            model=command.model,
            nudge=command.nudge,
            beta=command.beta,
            network=Network(hidden=command.hidden, units=command.units, blocks=command.blocks),
            precision=command.precision,
            seed=command.seed,
        )
        echo = f"the {command.nudge} echo"
        rule = "the reversed errors on the same machine" if command.model == "damped" else echo
        for name, check in (
            (echo, lambda: _chain(command, config)),
            (rule, lambda: check_model(command, config, dataset)),
        ):
            title, report = check()
            out.print(f"\n{title}: {name} against backprop, {command.precision}", markup=False)
            out.print(rich_table(report.cells()))
            exact = command.nudge == "infinitesimal"
            good = report.ok(tolerance)
            verdict = "it passes" if good else "IT IS TOO LARGE"
            if not exact:
                verdict = "not judged, because a finite nudge is not exact"
            elif not good and command.precision == "float32":
                verdict += " (rounding errors grow during the echo; use --precision float64 to exclude them)"
            out.print(f"Largest relative error {report.worst:.1e}, tolerance {tolerance:.0e}: {verdict}.")
            failed |= exact and not good
    return FAILED if failed else 0


def _equivalence(tolerance: float, precision: str) -> int:
    """Compare GLEP under the dual of an initial value with Hamiltonian echo learning; return the exit code."""
    with jax.enable_x64(precision == "float64"):
        pendulums, duffing, charge = systems.PendulumChain(), systems.DuffingNetwork(), systems.ChargedParticle()
        report = equivalence(
            {
                "pendulum chain": (pendulums, pendulums.start(n=4), 0.05),
                "Duffing network": (duffing, duffing.start(), 0.1),
                "charge in a magnetic field": (charge, charge.start(), 0.1),
            }
        )
    out, worst = console(), report.worst
    out.print(
        "\nThe same gradient by two methods. GLEP solves the discrete Euler-Lagrange equations backward from the free "
        "end and reads ∂L/∂θ. Hamiltonian echo learning flips the momenta, runs the machine forward again and reads "
        "-∂H/∂θ.\n"
    )
    out.print(rich_table(report.cells()))
    good = worst <= tolerance
    out.print(f"Largest relative difference {worst:.1e}: {'the same' if good else 'THEY DIFFER'}.")
    return 0 if good else FAILED


def _chain(command: Check, config: Config) -> tuple[str, GradientReport]:
    """Check gradients with respect to the constants, initial state, inputs and time step of a chain."""
    masses = 8
    key = jax.random.key(config.seed)
    mass, stiffness, q, p, u = (
        jax.random.normal(k, (n,)) for k, n in zip(jax.random.split(key, 5), (8, 9, 8, 8, command.steps), strict=True)
    )
    params = {
        "system": Chain(jnp.exp(0.3 * mass), jnp.exp(0.3 * stiffness)),
        "start": InitialValue(0.3 * q, 0.3 * p),
        "inputs": 0.3 * u,
        "dt": jnp.asarray(0.02),
    }

    def loss(params: Any, gradient: AbstractGradient) -> Array:
        trajectory = solve(
            params["system"], params["start"], params["inputs"], dt=params["dt"], steps=command.steps, gradient=gradient
        )
        return jnp.mean((trajectory.q - 0.1) ** 2)

    title = f"A chain of {masses} masses, {command.steps} steps"
    echo = dataclasses.replace(config, model="linear").gradient_object()  # the chain is not damped
    return title, check_gradients(loss, params, {command.nudge: echo}, taylor=command.taylor)


def check_model(command: Check, config: Config, dataset: Dataset) -> tuple[str, GradientReport]:
    """Check the gradients of an HSSM on a batch of real cases."""
    dataset = dataset.standardised(targets=dataset.task == "regression")
    batch = Batches(dataset.train, command.cases, seed=config.seed).batch(0, 0)
    model, state = initial_model(config, dataset)

    def loss(model: Any, gradient: AbstractGradient) -> Array:
        units = [gradient] * len(model.blocks)
        model = eqx.tree_at(lambda model: [block.unit.gradient for block in model.blocks], model, units)
        return batch_loss(dataset, model, state, batch)

    # The strength of a nudge is an array, but not a parameter: the model gets the exact echo, which has none.
    nudged = config.gradient_object()
    exact = dataclasses.replace(config, nudge="infinitesimal", beta=None).gradient_object()
    model = eqx.tree_at(lambda m: [b.unit.gradient for b in m.blocks], model, [exact] * config.network.blocks)
    name = "reciprocal" if config.model == "damped" else command.nudge
    title = f"HSSM of {config.network.blocks} {config.model} blocks on {command.cases} cases of {config.dataset}"
    return title, check_gradients(loss, model, {name: nudged}, taylor=command.taylor)
