"""Growth of the time, memory and passes of a gradient with the sizes of a problem."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from echograd._solve import solve
from echograd.boundary import InitialValue
from echograd.gradients import AbstractGradient, Backprop, Echo
from echograd.integrators import AbstractIntegrator, Leapfrog
from echograd.measure._passes import Counted, Tally
from echograd.nn import HSSM
from echograd.problem import FinalNode
from echograd.systems import FPUTChain, SeparableHamiltonian

from ._case import Case, Program, Row, compiled

ABOUT = """
One size grows, the others are constant: steps N, masses n and batch of an FPUT chain (otherwise 64 masses, 1,000 steps
and one trajectory; 200 steps if the batch grows); the number of differentiated parameters among the 4,096 couplings of
64 oscillators; blocks of an `HSSM` (batch 4, 1,024 steps, hidden 32, 32 units). Exponents are slopes of a straight line
through the logarithms. Passes are the steps for a gradient over the steps of the trajectories, counted by the
integrator at run time. The units of the `HSSM` take many steps at once; there, passes are the arithmetic operations of
the gradient over those of a forward run, with loops counted as often as they run. The reverse sweep of backpropagation
is not a run of the machine and counts only in operations.
"""

FORWARD = "forward"
GRADIENTS: dict[str, AbstractGradient] = {FORWARD: Echo(), "echo": Echo(), "backprop": Backprop()}
FULL: dict[str, tuple[int, ...]] = {
    "N": (1_000, 10_000, 100_000),
    "n": (16, 128, 1_024),
    "batch": (1, 8, 64),
    "parameters": (64, 512, 4_096),
    "blocks": (1, 3, 8),
}
# Few steps, because counting every step of every trajectory is slow.
STEPS = {"n": 1_000, "batch": 200, "parameters": 1_000, "blocks": 1_024}
QUICK: dict[str, tuple[int, ...]] = {"N": (20, 40), "parameters": (64,), "blocks": (1,)}


def cases(quick: bool, peers: dict[str, str]) -> list[Case]:
    """Return all axes and sizes."""
    del peers
    return [
        Case(
            f"{axis} = {size:,}",
            {"axis": axis, "size": size, **({} if axis == "N" else {"steps": 20 if quick else STEPS[axis]})},
            tuple(GRADIENTS),
            base=FORWARD,
            reference="backprop",
        )
        for axis, sizes in (QUICK if quick else FULL).items()
        for size in sizes
    ]


class Coupled(SeparableHamiltonian):
    """Coupled oscillators; the first rows of the couplings are differentiated."""

    learned: Float[Array, "some n"]
    given: Float[Array, "others n"]

    def kinetic(self, t: Any, p: Float[Array, " n"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(p**2)

    def potential(self, t: Any, q: Float[Array, " n"], u: Any) -> Float[Array, ""]:
        couplings = jnp.concatenate([self.learned, self.given])
        return 0.5 * jnp.sum(q**2) + q @ (couplings @ q)


def task(case: Case, contender: str, integrator: AbstractIntegrator) -> tuple[Any, Any]:
    """Return a cost `(params) -> scalar` and its parameters."""
    axis, size, gradient = case.sizes["axis"], case.sizes["size"], GRADIENTS[contender]
    steps = size if axis == "N" else case.sizes["steps"]
    if axis == "blocks":
        return _network(size, steps, gradient)
    n, batch = size if axis == "n" else 64, size if axis == "batch" else 1
    mode = jnp.sin(jnp.pi * jnp.arange(1, n + 1) / (n + 1))
    starts = jnp.linspace(0.5, 1.0, batch)[:, None] * mode[None, :]
    if axis == "parameters":
        couplings = 0.1 / n * jax.random.normal(jax.random.key(0), (n, n))
        params: Any = couplings[: size // n]
        whole = lambda params: Coupled(params, couplings[size // n :])  # noqa: E731
    else:
        bonds = jnp.ones(n + 1)
        params = FPUTChain(jnp.ones(n), bonds, 0.25 * bonds, 0.1 * bonds)
        whole = lambda params: params  # noqa: E731

    def cost(params: Any) -> Array:
        def of(q: Array) -> Array:
            sol = solve(
                whole(params),
                InitialValue(q, jnp.zeros_like(q)),
                dt=0.05,
                steps=steps,
                integrator=integrator,
                gradient=gradient,
                save=FinalNode(),
                cost=lambda t, q, p: jnp.sum(q**2) / steps,
            )
            return sol.cost

        return jnp.sum(jax.vmap(of)(starts)) if axis == "batch" else of(starts[0])

    return cost, params


def _network(blocks: int, steps: int, gradient: AbstractGradient) -> tuple[Any, Any]:
    model, _ = eqx.nn.make_with_state(HSSM)(
        4, 2, hidden=32, units=32, blocks=blocks, norm="layer", dropout=0.0, gradient=gradient, key=jax.random.key(0)
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)
    x = jax.random.normal(jax.random.key(1), (4, steps, 4))
    return lambda params: jnp.mean(eqx.combine(params, static)(x)[0] ** 2), params


def build(case: Case, contender: str) -> Program:
    """Compile a cost or its gradient."""
    cost, params = task(case, contender, Leapfrog())
    program, figures = compiled(cost if contender == FORWARD else jax.value_and_grad(cost), params)
    result = None if contender == FORWARD else (lambda found: {"gradient": found[1]})
    return Program(lambda: program(params), figures, result)


def count_passes(case: Case) -> dict[str, dict[str, Any]]:
    """Count the passes of every contender."""
    with jax.enable_x64(case.dtype == "float64"):
        count = operations if case.sizes["axis"] == "blocks" else steps_taken
        counted = {name: count(case, name) for name in case.contenders}
    return {name: {"passes": counted[name] / counted[FORWARD]} for name in case.contenders}


def steps_taken(case: Case, contender: str) -> float:
    """Run a contender with an integrator that counts its steps."""
    tally = Tally()
    cost, params = task(case, contender, Counted(Leapfrog(), tally))
    jax.block_until_ready(jax.jit(cost if contender == FORWARD else jax.grad(cost))(params))
    jax.effects_barrier()
    return float(tally.count)


def operations(case: Case, contender: str) -> float:
    """Return the arithmetic operations of the program of a contender; loops count as often as they run."""
    cost, params = task(case, contender, Leapfrog())
    return _operations(jax.make_jaxpr(cost if contender == FORWARD else jax.grad(cost))(params).jaxpr)


def _operations(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [_operations(found) for value in equation.params.values() for found in _programs(value)]
        if equation.primitive.name == "scan":
            total += equation.params["length"] * sum(inner)
        elif inner:
            # The most expensive branch counts. A loop of unknown length counts once.
            total += max(inner) if equation.primitive.name == "cond" else sum(inner)
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            (left, _), (out,) = equation.invars, equation.outvars
            total += 2 * np.prod([left.aval.shape[i] for i in contracted]) * out.aval.size
        elif equation.primitive.name not in _MOVES:
            sizes = [x.aval.size for x in (*equation.invars, *equation.outvars) if _is_real(x.aval)]
            total += max(sizes, default=0)
    return float(total)


# Primitives that move numbers without arithmetic.
_MOVES = {
    "broadcast_in_dim", "reshape", "transpose", "squeeze", "slice", "concatenate", "pad", "rev", "gather",
    "dynamic_slice", "dynamic_update_slice", "copy", "convert_element_type", "select_n", "optimization_barrier",
    "stop_gradient", "expand_dims", "name", "iota",
}  # fmt: skip


def _is_real(aval: Any) -> bool:
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.inexact)


def _programs(value: Any) -> list[Any]:
    """Return the programs among the parameters of an equation."""
    if hasattr(value, "eqns"):
        return [value]
    if hasattr(value, "jaxpr"):
        return [value.jaxpr]
    return [found for item in value for found in _programs(item)] if isinstance(value, tuple | list) else []


ROW = Row("growth", "Growth", ABOUT, cases, build, count_passes)
