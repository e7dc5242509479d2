"""Runs ahead and back through friction: are the bits of the start found again?"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from echograd._solve import solve
from echograd.boundary import InitialValue
from echograd.friction import Damped, Langevin
from echograd.gradients import Backprop, Rewind
from echograd.integrators import Leapfrog
from echograd.problem import FinalNode
from echograd.systems import FPUTChain

from ._case import Case, Program, compiled
from ._chain import STEP, Driven, State, step, step_back

AHEAD, EXACT, FLOATS = "ahead", "ahead and back, Rewind(bits)", "ahead and back, in floats"

# Friction takes 99.9 % of the energy of a free chain in 10,000 steps; in a heat bath it is stronger.
RATES = {"driven": math.log(1000) / (10_000 * STEP), "bath": 0.1}


def cases(quick: bool) -> list[Case]:
    """Return the runs ahead and back. The rival in floats runs without noise."""
    steps = 160 if quick else 1_000_000
    contenders = {"driven": (AHEAD, EXACT, FLOATS), "bath": (AHEAD, EXACT)}
    titles = {"driven": ("chaotic driven chain", 16), "bath": ("chain in a heat bath", 8)}
    return [
        Case(
            f"{title}, {steps:,} steps",
            {"problem": problem, "steps": steps, "masses": masses},
            contenders[problem],
            base=AHEAD,
        )
        for problem, (title, masses) in titles.items()
    ]


def build(case: Case, contender: str) -> Program:
    """Compile a run ahead, or ahead and back."""
    n, steps, problem = case.sizes["masses"], case.sizes["steps"], case.sizes["problem"]
    rate, driven = RATES[problem], problem == "driven"
    force = jax.random.normal(jax.random.key(1), (n,)) if driven else jnp.zeros(n)
    system = Driven(FPUTChain(1.0, 1.0, 0.25, 1.0), force)
    friction = rate if driven else Langevin(rate, 1.0, jax.random.key(2))
    z0, noted = FPUTChain().start(n), {}

    def ahead(z0: State) -> State:
        rule = Rewind(bits=max(4 * rate * STEP, 20 / steps), report=lambda bits: noted.update(bits=float(bits)))
        sol = solve(
            Damped(system, friction),
            InitialValue(*z0),
            dt=STEP,
            steps=steps,
            integrator=Leapfrog(exact=True),
            gradient=rule if contender == EXACT else Backprop(),
            save=FinalNode(),
        )
        return sol.q, sol.p

    def there_and_back(z0: State, bars: State) -> Any:
        """Go back with these cotangents. The way back raises unless it arrives at the bits of the start."""
        end, pull = jax.vjp(ahead, z0)
        return end, pull(bars)

    def in_floats(z0: State) -> State:
        kept = jnp.exp(-STEP * jnp.asarray(rate))
        end, _ = jax.lax.scan(lambda z, k: (step(system, kept, STEP * k, z), None), z0, jnp.arange(steps))
        back = lambda z, k: (step_back(system, kept, STEP * k, z), None)  # noqa: E731
        return jax.lax.scan(back, end, jnp.arange(steps), reverse=True)[0]

    if contender == FLOATS:
        program, figures = compiled(in_floats, z0)
    elif contender == EXACT:
        # Cotangents of 0 stay 0; others would outgrow the floats on a chaotic path.
        bars = jax.tree.map(jnp.zeros_like, z0)
        program, figures = compiled(there_and_back, z0, bars)
    else:
        program, figures = compiled(ahead, z0)
        if driven:
            figures |= chaos(system, rate, z0, min(steps, 10_000))

    def run() -> Any:
        found = program(z0, bars) if contender == EXACT else program(z0)
        if contender == EXACT:
            jax.effects_barrier()  # the report
            figures.update(noted, predicted_bits=2 * rate * STEP, distance=0.0)
        if contender == FLOATS:
            distance = max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(found, z0, strict=True))
            figures["distance"] = distance if math.isfinite(distance) else None
        return found

    return Program(run, figures)


def chaos(system: Driven, rate: float, z0: State, steps: int) -> dict[str, float]:
    """Return the growth rate of a small deviation, and the part of the energy that is left without the drive."""
    kept = jnp.exp(-STEP * jnp.asarray(rate))

    def run(z: State, system: Driven) -> State:
        return jax.lax.scan(lambda z, k: (step(system, kept, STEP * k, z), None), z, jnp.arange(steps))[0]

    def energy(z: State) -> Array:
        return system.chain.kinetic(0.0, z[1]) + system.chain.potential(0.0, z[0], None)

    free = Driven(system.chain, 0 * system.force)
    z = run(z0, system)
    _, deviation = jax.jvp(lambda z: run(z, system), (z,), (jax.tree.map(jnp.ones_like, z),))
    growth = jnp.log(jnp.sqrt(sum(jnp.sum(x**2) for x in deviation))) / (steps * STEP)
    return {"growth_rate": float(growth), "energy_left": float(energy(run(z, free)) / energy(z))}
