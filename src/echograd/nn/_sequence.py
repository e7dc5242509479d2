"""One pass of a recurrent unit over a sequence, and its echo."""

import functools
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
# Steps whose drives and positions are held at a time: enough for efficient matrix products, few enough for the cache.
_BLOCK = 64

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

    With an `Echo`, what is kept for the backward pass is the input `x` and the final state. Drives and positions, which
    are wide, live for one block of steps at a time, both ways: the drive is computed again, and the positions that the
    gradient of $C$ needs are those that the echo passes through.
    """
    gradient = constant(gradient)
    if isinstance(gradient, Echo):
        return _echoed((system, read_in, read_out, x), gradient)
    if isinstance(gradient, Backprop):
        body = functools.partial(_oscillate, system)
        q = checkpointed_scan(body, at_rest(read_in), _drive(read_in, x), gradient.checkpoints)[1]
        return _read(read_out, q)
    raise TypeError(f"A recurrent unit takes gradient=Echo(...) or Backprop(...), and got {gradient!r}.")


def _drive(read_in: ReadIn, x: Float[Array, "steps inputs"]) -> Drive:
    return jnp.einsum("li,cui->lcu", x, read_in)


def _read(read_out: ReadOut, q: Drive) -> Float[Array, "steps outputs"]:
    return jnp.einsum("ocu,lcu->lo", read_out, q)


def _oscillate(system: SeparableHamiltonian, z: State, u: Any) -> tuple[State, Any]:
    """Take one step, in the form that a scan wants; the positions are what comes out."""
    z = advance(system, z, u)
    return z, z[0]


def _blockwise(body: Any, carry: Any, xs: PyTree, *, reverse: bool = False) -> tuple[Any, PyTree]:
    """Scan over blocks of steps: `body` gets the rows of a block and returns as many rows."""
    steps = jax.tree.leaves(xs)[0].shape[0]
    length = _block_length(steps)
    whole = steps // length * length

    def blocks(carry: Any) -> tuple[Any, PyTree]:
        rows = jax.tree.map(lambda x: x[:whole].reshape(-1, length, *x.shape[1:]), xs)
        carry, ys = jax.lax.scan(body, carry, rows, reverse=reverse)
        return carry, jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)

    if whole == steps:
        return blocks(carry)
    rest = jax.tree.map(lambda x: x[whole:], xs)
    if reverse:
        carry, tail = body(carry, rest)
        carry, ys = blocks(carry)
    else:
        carry, ys = blocks(carry)
        carry, tail = body(carry, rest)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, tail)


def _block_length(steps: int) -> int:
    """Return a block length that divides the steps if there is one of a good size, so that no shorter block is left."""
    if steps <= _BLOCK:
        return steps
    return next((n for n in range(2 * _BLOCK, _BLOCK // 2, -1) if steps % n == 0), _BLOCK)


def _forward(
    system: SeparableHamiltonian, read_in: ReadIn, read_out: ReadOut, x: Float[Array, "steps inputs"]
) -> tuple[State, Float[Array, "steps outputs"]]:
    """Return the final state and the outputs."""

    def body(z: State, x: Any) -> tuple[State, Any]:
        z, q = jax.lax.scan(functools.partial(_oscillate, system), z, _drive(read_in, x))
        return z, _read(read_out, q)

    return _blockwise(body, at_rest(read_in), x)


@eqx.filter_custom_vjp
def _echoed(arguments: Any, echo: Echo) -> Float[Array, "steps outputs"]:
    del echo
    return _forward(*arguments)[1]


@_echoed.def_fwd
def _echoed_forward(perturbed: Any, arguments: Any, echo: Echo) -> tuple[Any, State]:
    del perturbed, echo
    final, y = _forward(*arguments)
    return y, final


@_echoed.def_bwd
def _echoed_backward(final: State, bar: Any, perturbed: Any, arguments: Any, echo: Echo) -> Any:
    """Echo the unit: the cotangents of system, read-in, read-out and input from one nudged run back."""
    del perturbed
    system, read_in, read_out, x = arguments
    nudge, steps = echo.nudge, x.shape[0]
    params, static = eqx.partition(system, eqx.is_inexact_array)
    still = eqx.tree_at(lambda w: w.system, world(system, None), static)

    start = (final[0], _tree.negate(final[1]))
    load = jnp.linalg.norm(read_out) * jnp.sum(jnp.linalg.norm(bar, axis=1))
    beta = nudge.strength(start, load, steps)

    def back(carry: Any, row: Any) -> tuple[Any, Any]:
        """Nudge, step back, and read."""
        ensemble, total = carry
        u, bar_q = row
        q = nudge.retraced(ensemble)[0][0]

        def pushed(beta: Any, z: State) -> tuple[State, World]:
            z = z[0], z[1] + beta * bar_q
            wanted = World(params, u, None, None)  # pyright: ignore[reportArgumentType]
            return _INTEGRATOR.read(wanted, still, jnp.zeros((), jnp.int32), z, "echo")

        ensemble, reading = nudge.advance(beta, pushed, ensemble)
        return (ensemble, _tree.add(total, reading.system)), (reading.u, q)

    def block(carry: Any, rows: Any) -> tuple[Any, Any]:
        run, bar_in, bar_out = carry
        x, bar = rows
        drive, bar_q = _drive(read_in, x), jnp.einsum("lo,ocu->lcu", bar, read_out)
        run, (bar_u, q) = jax.lax.scan(back, run, (drive, bar_q), reverse=True)
        bar_in += jnp.einsum("lcu,li->cui", bar_u, x)
        bar_out += jnp.einsum("lo,lcu->ocu", bar, q)
        return (run, bar_in, bar_out), jnp.einsum("lcu,cui->li", bar_u, read_in)

    carry = (nudge.start(start), _tree.zeros_like(params)), jnp.zeros_like(read_in), jnp.zeros_like(read_out)
    carry, bar_x = _blockwise(block, carry, (x, bar), reverse=True)
    ((ensemble, total), bar_in, bar_out) = carry
    bars = nudge.check((total, bar_in, bar_out, bar_x), beta, ensemble, load, steps)
    return bars
