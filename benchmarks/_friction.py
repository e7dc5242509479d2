"""Gradients of a chain with friction: exact reversal with a record of lost bits, checkpoints, and other libraries."""

import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from echograd._solve import solve
from echograd.boundary import InitialValue
from echograd.friction import Damped
from echograd.gradients import AbstractGradient, Backprop, Echo, Rewind
from echograd.integrators import Leapfrog
from echograd.problem import FinalNode
from echograd.systems import FPUTChain

from . import _retrace
from ._case import Case, Program, Row, compiled
from ._chain import STEP, Driven, State, step

ABOUT = """
The gradient of the sum of all squared coordinates at the last node, with respect to all springs and friction rates of
a driven FPUT chain (256 masses, step 0.05, float64). Friction takes 1 % of a momentum in a step (γh = 0.01), at all
masses or at every tenth. All contenders run the same leapfrog with friction: those of echograd in fixed point
(`Leapfrog(exact=True)`), the others in floats. `Rewind(bits)` has a record of 4 γh bits for every momentum and step
(the mean over all masses). Checkpointed scans keep √N states. diffrax runs this step as a solver of its own, with its
default number of checkpoints, and (*lean*) with only as many as fit in the record of `Rewind(bits)`, at least 8. The
unit of the ratios is the echo of the same chain without friction and with the force 0 (`Leapfrog(exact=True)`).
Errors are relative to `Backprop(checkpoints=√N)` through the same fixed-point map. *Bits* are those put away for
every momentum and step; theory predicts 2 γh.

Two further cases run a system ahead and back and compare the bits: a chaotic driven chain whose friction takes 99.9 %
of the energy in 10,000 steps, and a chain in a heat bath (`friction.Langevin`). The way back raises unless every bit
of the start is found again. The rival undoes the same step in floats, without noise.
"""

ECHO, REFERENCE = "echo, no friction", "Backprop(checkpoints=√N)"
REWINDS = ("Rewind()", "Rewind(bits)", "Rewind(bits, checkpoints=4)")
BY_HAND = ("lax.scan by hand", "lax.scan by hand, checkpointed")
DIFFRAX = ("diffrax RecursiveCheckpointAdjoint", "diffrax RecursiveCheckpointAdjoint, lean")
CONTENDERS = (ECHO, *REWINDS, "Backprop()", REFERENCE, *BY_HAND, *DIFFRAX)

RATE, MASSES = 0.2, 256
SHARES = {"a tenth damped": 10, "all damped": 1}
FULL = (10_000, 100_000, 1_000_000)


def cases(quick: bool, peers: dict[str, str]) -> list[Case]:
    """Return the gradients of both chains at all numbers of steps, and the runs ahead and back."""
    del peers
    gradients = [
        Case(
            f"{damped}, {steps:,} steps",
            {"problem": "gradient", "steps": steps, "masses": 20 if quick else MASSES, "every": every},
            CONTENDERS,
            base=ECHO,
            reference=REFERENCE,
        )
        for damped, every in SHARES.items()
        for steps in ((200,) if quick else FULL)
    ]
    return [*gradients, *_retrace.cases(quick)]


def problem(case: Case) -> tuple[tuple[Array, Array], Array, State]:
    """Return the parameters (stiffness, rates), the force, and the initial state."""
    n = case.sizes["masses"]
    stiffness = 1.0 + 0.2 * jax.random.uniform(jax.random.key(0), (n + 1,))
    force = 0.05 * jax.random.normal(jax.random.key(1), (n,))
    rates = jnp.where(jnp.arange(n) % case.sizes["every"] == 0, RATE, 0.0)
    return (stiffness, rates), force, FPUTChain().start(n)


def bits_of(case: Case) -> float:
    """Return the size of a small record: 4 γh, the mean over all momenta."""
    n, every = case.sizes["masses"], case.sizes["every"]
    return 4 * RATE * STEP * math.ceil(n / every) / n


def build(case: Case, contender: str) -> Program:
    """Compile a gradient, or a run ahead and back."""
    if case.sizes["problem"] != "gradient":
        return _retrace.build(case, contender)
    params, force, z0 = problem(case)
    steps, figures = case.sizes["steps"], {}

    def report(bits: Any) -> None:
        figures["bits"] = float(bits)

    def loss(params: tuple[Array, Array]) -> Array:
        stiffness, rates = params
        # Without friction the driven chain would gain energy for ever.
        system = Driven(FPUTChain(1.0, stiffness, 0.25, 0.1), 0 * force if contender == ECHO else force)
        if contender in BY_HAND:
            q = by_hand(system, rates, z0, steps, checkpointed=contender != BY_HAND[0])
        elif contender in DIFFRAX:
            checkpoints = None if contender == DIFFRAX[0] else max(8, round(bits_of(case) * steps / 128))
            q = by_diffrax(system, rates, z0, steps, checkpoints)
        else:
            whole = system if contender == ECHO else Damped(system, rates)
            q = by_echograd(whole, rule(case, contender, report), z0, steps)
        return jnp.sum(q**2)

    program, found = compiled(jax.value_and_grad(loss), params)
    figures |= found
    if contender in REWINDS:
        figures["predicted_bits"] = bits_of(case) / 2

    def run() -> Any:
        found = program(params)
        if contender in REWINDS and "bits" not in figures:
            jax.effects_barrier()  # the report
        return found

    return Program(run, figures, None if contender == ECHO else lambda found: {"gradient": found[1]})


def rule(case: Case, contender: str, report: Any) -> AbstractGradient:
    """Return a gradient of echograd."""
    bits = bits_of(case)
    return {
        ECHO: lambda: Echo(),
        "Rewind()": lambda: Rewind(report=report),
        "Rewind(bits)": lambda: Rewind(bits=bits, report=report),
        "Rewind(bits, checkpoints=4)": lambda: Rewind(bits=bits, checkpoints=4, report=report),
        "Backprop()": lambda: Backprop(),
        REFERENCE: lambda: Backprop(checkpoints=math.isqrt(case.sizes["steps"])),
    }[contender]()


def by_echograd(system: Any, gradient: AbstractGradient, z0: State, steps: int) -> Array:
    """Return the last coordinates by `solve`."""
    integrator = Leapfrog(exact=True)
    sol = solve(
        system,
        InitialValue(*z0),
        dt=STEP,
        steps=steps,
        integrator=integrator,
        gradient=gradient,
        save=FinalNode(),
    )
    return sol.q


def by_hand(system: Driven, rates: Array, z0: State, steps: int, *, checkpointed: bool) -> Array:
    """Return the last coordinates by a loop as one would write it."""
    kept = jnp.exp(-STEP * rates)

    def advance(z: Any, k: Any) -> tuple[Any, None]:
        return step(system, kept, STEP * k, z), None

    if not checkpointed:
        return jax.lax.scan(advance, z0, jnp.arange(steps))[0][0]
    inner = math.isqrt(steps)
    outer = steps // inner
    segment = jax.checkpoint(lambda z, k: jax.lax.scan(advance, z, inner * k + jnp.arange(inner))[0])
    z, _ = jax.lax.scan(lambda z, k: (segment(z, k), None), z0, jnp.arange(outer))
    return jax.lax.scan(advance, z, jnp.arange(outer * inner, steps))[0][0]


def by_diffrax(system: Driven, rates: Array, z0: State, steps: int, checkpoints: int | None) -> Array:
    """Return the last coordinates by diffrax, with the same step as a solver."""
    diffrax: Any = importlib.import_module("diffrax")

    class DampedLeapfrog(diffrax.AbstractSolver):
        term_structure = diffrax.AbstractTerm
        interpolation_cls = diffrax.LocalLinearInterpolation

        def order(self, terms: Any) -> int:
            return 2

        def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
            return None

        def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: Any, made_jump: Any) -> Any:
            system, kept = args
            y1 = step(system, kept, t0, y0)
            return y1, None, {"y0": y0, "y1": y1}, None, diffrax.RESULTS.successful

        def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
            return terms.vf(t0, y0, args)

    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: y),  # unused: the step has its forces from `args`
        DampedLeapfrog(),
        0.0,
        steps * STEP,
        STEP,
        z0,
        args=(system, jnp.exp(-STEP * rates)),
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints),
        max_steps=steps + 1,
    )
    return sol.ys[0][-1]


ROW = Row("friction", "Gradients through friction", ABOUT, cases, build)
