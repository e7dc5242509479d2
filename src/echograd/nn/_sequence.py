"""One pass of a recurrent unit over a sequence, and its echo."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _tree
from ..gradients import AbstractGradient, Backprop, Echo, checkpointed_scan, constant
from ..integrators import Leapfrog, State, World
from ..systems import SeparableHamiltonian

_INTEGRATOR = Leapfrog()

Drive = Float[Array, "steps channels units"]
ReadIn = Float[Array, "channels units inputs"]
ReadOut = Float[Array, "outputs channels units"]


def world(system: SeparableHamiltonian, u: Any) -> World:
    """Return the world of one step of unit length; units carry their own steps in their energies."""
    dtype = jax.tree.leaves(eqx.filter(system, eqx.is_inexact_array))[0].dtype
    return World(system, u, jnp.ones((), dtype), jnp.zeros((), dtype))


def advance(system: SeparableHamiltonian, z: State, u: Float[Array, "channels units"]) -> State:
    """Take the oscillators through one step under the drive `u`."""
    return _INTEGRATOR.step(world(system, u), jnp.zeros((), jnp.int32), z)


def at_rest(read_in: ReadIn) -> State:
    """Return oscillators at rest."""
    zero = jnp.zeros(read_in.shape[:2], read_in.dtype)
    return zero, zero


def transduce(
    system: SeparableHamiltonian,
    read_in: ReadIn,
    read_out: ReadOut,
    x: Float[Array, "steps inputs"],
    gradient: AbstractGradient,
) -> Float[Array, "steps outputs"]:
    r"""Return $y_k = C q_{k+1}$ for oscillators driven from rest by $u_k = B x_k$.

    With an `Echo`, what is kept for the backward pass is the input `x` and the final state: the drive is computed again,
    and the positions that the gradient of $C$ needs are those that the echo passes through.
    """
    gradient = constant(gradient)
    if isinstance(gradient, Echo):
        return _echoed((system, read_in, read_out, x), gradient)
    if isinstance(gradient, Backprop):
        return _read(read_out, _forward(system, _drive(read_in, x), gradient.checkpoints)[1])
    raise TypeError(
        f"A recurrent unit takes gradient=Echo(...) or Backprop(...), and got {gradient!r}."
    )


def _drive(read_in: ReadIn, x: Float[Array, "steps inputs"]) -> Drive:
    return jnp.einsum("li,cui->lcu", x, read_in)


def _read(read_out: ReadOut, q: Drive) -> Float[Array, "steps outputs"]:
    return jnp.einsum("ocu,lcu->lo", read_out, q)


def _forward(
    system: SeparableHamiltonian, drive: Drive, checkpoints: int | None = None
) -> tuple[State, Drive]:
    """Return the final state and the positions after every step."""

    def body(z: State, u: Any) -> tuple[State, Any]:
        z = advance(system, z, u)
        return z, z[0]

    zero = jnp.zeros(drive.shape[1:], drive.dtype)
    return checkpointed_scan(body, (zero, zero), drive, checkpoints)


@eqx.filter_custom_vjp
def _echoed(arguments: Any, echo: Echo) -> Float[Array, "steps outputs"]:
    del echo
    system, read_in, read_out, x = arguments
    return _read(read_out, _forward(system, _drive(read_in, x))[1])


@_echoed.def_fwd
def _echoed_forward(perturbed: Any, arguments: Any, echo: Echo) -> tuple[Any, State]:
    del perturbed, echo
    system, read_in, read_out, x = arguments
    final, q = _forward(system, _drive(read_in, x))
    return _read(read_out, q), final


@_echoed.def_bwd
def _echoed_backward(final: State, bar: Any, perturbed: Any, arguments: Any, echo: Echo) -> Any:
    del perturbed
    system, read_in, read_out, x = arguments
    drive = _drive(read_in, x)
    bar_system, bar_drive, q = _echo(system, drive, jnp.einsum("lo,ocu->lcu", bar, read_out), final, echo)
    return (
        bar_system,
        jnp.einsum("lcu,li->cui", bar_drive, x),
        jnp.einsum("lo,lcu->ocu", bar, q),
        jnp.einsum("lcu,cui->li", bar_drive, read_in),
    )


def _echo(
    system: SeparableHamiltonian, drive: Drive, bar_q: Drive, final: State, echo: Echo
) -> tuple[PyTree, Drive, Drive]:
    """Return the cotangents of the system and of the drive, and the positions passed through again."""
    nudge, steps = echo.nudge, drive.shape[0]
    params, static = eqx.partition(system, eqx.is_inexact_array)
    still = eqx.tree_at(lambda w: w.system, world(system, None), static)
    nothing = World(params, None, None, None)  # pyright: ignore[reportArgumentType]

    start = (final[0], _tree.negate(final[1]))
    load = jnp.sum(jnp.sqrt(jnp.sum(bar_q**2, (1, 2))))
    beta = nudge.strength(start, load, steps)

    def body(carry: Any, row: Any) -> tuple[Any, Any]:
        ensemble, total = carry
        u, bar = row
        q = nudge.retraced(ensemble)[0][0]

        def pushed(beta: Any, z: State) -> tuple[State, World]:
            z = z[0], z[1] + beta * bar
            wanted = eqx.tree_at(lambda w: w.u, nothing, u, is_leaf=lambda x: x is None)
            return _INTEGRATOR.echo_step(wanted, still, jnp.zeros((), jnp.int32), z)

        ensemble, reading = nudge.advance(beta, pushed, ensemble)
        return (ensemble, _tree.add(total, reading.system)), (reading.u, q)

    carry = nudge.start(start), _tree.zeros_like(params)
    (ensemble, total), (bar_drive, q) = jax.lax.scan(body, carry, (drive, bar_q), reverse=True)
    total = nudge.check(total, beta, ensemble, load, steps)
    return total, bar_drive, q


__all__ = ["advance", "at_rest", "transduce", "world"]
