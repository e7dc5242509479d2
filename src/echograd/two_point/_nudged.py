"""The nudged path of a two-point problem, and the cotangents that are read along it."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._internal import _tree
from ..boundary._duality import omega
from ..integrators import StepInputs
from ..nudge import AbstractNudge, Infinitesimal
from ._newton import TwoPointNewton, find_path
from ._path import path_at
from ._problem import Condition, Nodes, TwoPoint, ends


class NudgedPath(eqx.Module):
    """The response to a nudge: d/dβ of the readings and of the ends, both with β in the unit of the action."""

    readings: StepInputs
    ends: Float[Array, " 4n"]


def nudged_path(
    problem: TwoPoint,
    wanted: StepInputs,
    rest: StepInputs,
    x: Nodes,
    bars: Nodes,
    nudge: AbstractNudge,
    newton: TwoPointNewton,
) -> NudgedPath:
    r"""Solve the nudged problem under `problem.condition` about the free path `x`, and return d/dβ of its readings."""
    # Scale the cotangents to order 1 too: the response is linear in them.
    cost = jax.lax.stop_gradient(_tree.power_of_two(jnp.max(jnp.abs(bars))))
    bars = bars / cost

    def pushed(beta: Any, x: Nodes) -> tuple[Nodes, tuple[StepInputs, Float[Array, " 4n"]]]:
        kicks = kicks_of(bars, beta)
        if isinstance(nudge, Infinitesimal):
            # At β = 0 the nudged path is the free one, so only its derivative is needed. No check for a conjugate
            # point: the dual condition has one only where the free condition has, and that has been checked.
            factors = _tree.fixed(problem).linearised(*_tree.fixed((x, kicks)))
            found = path_at(x, factors, problem, kicks)
        else:
            found, _ = find_path(problem, newton, x, kicks, "nudged")
        return found, (problem.read(wanted, rest, found, kicks), ends(found, kicks))

    n, newton = x.shape[1] // 2, dataclasses.replace(newton, continuation=1)
    load = jnp.sum(jnp.max(jnp.abs(bars[:, :n]), 1) + jnp.max(jnp.abs(bars[:, n:]), 1))
    # The nudge wants strength and load in the user's units: an action over a cost, and its inverse.
    beta = nudge.strength(jnp.ones(1, x.dtype), load / problem.units.q / problem.units.p * cost, problem.problem.steps)
    beta = beta / problem.units.q / problem.units.p * cost
    ensemble, (readings, at_ends) = nudge.advance(beta, pushed, nudge.start(x))
    if problem.problem.throw:
        found = nudge.check((readings, at_ends), beta, ensemble, load, problem.problem.steps)
        readings, at_ends = eqx.error_if(
            found,
            ~(_tree.all_finite(found) & jnp.isfinite(load)),
            "solve: the gradient of the two-point problem holds a NaN or an infinity. The path itself is finite, so "
            "the loss or the energy has no derivative at one of its nodes (a root or a logarithm of zero, a division).",
        )
    return NudgedPath(*_tree.scale(cost, (readings, at_ends)))


def kicks_of(bars: Nodes, beta: Any) -> Nodes:
    r"""Return the kicks of the nudge: $\beta \bar y$ to the momenta, $-\beta \bar y^p$ to the coordinates."""
    y, yp = jnp.split(bars, 2, axis=1)
    return beta * jnp.concatenate([-yp, y], 1)


def condition_bars(condition: Condition, free: Float[Array, " 4n"], nudged: Float[Array, " 4n"]) -> Condition:
    r"""Return the cotangents of rows and data: the explicit part of the boundary residual, $\Omega(d_\beta z, v)$.

    $v$ is any variation of the ends with $B v = \partial_\theta b - (\partial_\theta B) z_\partial$; the pseudo-inverse
    gives one.
    """
    form = omega(free.size // 4, free.dtype)
    data = jnp.linalg.pinv(condition.rows).T @ (form.T @ nudged)
    return Condition(-data[:, None] * free[None], data)
