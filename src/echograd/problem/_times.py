"""States between the nodes: by a shorter step of the same scheme from the node before."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._internal import _tree
from .._internal._errors import ArgumentError, ArgumentTypeError, refuse_if
from ..friction import Damped, Langevin
from ..integrators import State, StepInputs
from ._problem import Problem
from ._save import AtTimes, ChosenNodes

# A time may miss the run by this part of a step, for rounding.
_SLACK = 1e-3


def chosen_nodes(save: AtTimes, given: StepInputs, steps: int) -> ChosenNodes:
    """Return the rule that keeps the node before every time, each once."""
    system = given.system
    if isinstance(system, Damped) and isinstance(system.friction, Langevin):
        raise ArgumentTypeError(
            "AtTimes: Langevin friction kicks the momenta once a step, so there is no state between the nodes. Use "
            "AtNodes, or a dt that divides the times."
        )
    nodes = nodes_before(_within(save.times, given, steps), given, steps)
    # Rows that are left over get a number beyond the last node.
    return ChosenNodes(jnp.unique(nodes, size=nodes.size, fill_value=steps + 1), True)


def nodes_before(times: Float[Array, " m"], given: StepInputs, steps: int) -> Int[Array, " m"]:
    """Return the last node before every time."""
    k = jnp.floor(jax.lax.stop_gradient((times.astype(given.h.dtype) - given.t0) / given.h))
    return jnp.clip(k, 0, steps - 1).astype(jnp.int32)


def states_between(problem: Problem, times: Float[Array, " m"], kept: State) -> State:
    """Return the states at these times from the kept nodes before them."""
    given, save = problem.given, problem.save
    assert isinstance(save, ChosenNodes)
    times = times.astype(given.h.dtype)
    k = nodes_before(times, given, problem.steps)
    system = given.system
    if isinstance(system, Damped):  # what friction does depends on the length of the step
        system = eqx.tree_at(lambda x: x.action, system, None, is_leaf=lambda x: x is None)

    def one(t: Float[Array, ""], k: Int[Array, ""]) -> State:
        before = given.time(k)
        short = StepInputs(system, _tree.take(given.u, k), t - before, before)
        return problem.integrator.step(short, jnp.zeros((), jnp.int32), _tree.take(kept, save.row(k)))

    return jax.vmap(one)(times, k)


def _within(times: Float[Array, " m"], given: StepInputs, steps: int) -> Float[Array, " m"]:
    """Return the times, or raise if one of them is outside of the run."""
    early, late = jnp.min(times), jnp.max(times)
    begin, end = given.t0, given.t0 + steps * given.h
    slack = _SLACK * given.h
    outside = (early < begin - slack) | (late > end + slack)
    if not isinstance(outside, Tracer):
        if bool(outside):
            raise ArgumentError(
                f"AtTimes: the times are from {float(early):g} to {float(late):g}, and the run is from "
                f"{float(begin):g} to {float(end):g}. Take more steps, or leave out the times outside of the run."
            )
        return times
    return refuse_if(
        times,
        outside,
        "AtTimes: a time is {} outside of the run. Take more steps, or leave out the times outside of the run.",
        jnp.maximum(begin - early, late - end),
    )
