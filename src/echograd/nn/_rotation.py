"""Linear oscillators, damped or not: a block of steps as a few matrix products."""

import math
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..integrators import State
from ._layout import product, reshaped
from ._motion import AbstractMotion
from ._oscillators import DampedOscillators, LinearOscillators, Wide

# Steps in one matrix product of a rotation. More steps need more arithmetic; fewer make more and smaller products.
_CHUNK = 32


class Rotation(AbstractMotion):
    r"""Linear oscillators, a block of steps in a few products.

    A state is a pair $z$ on the last axis in which a step is a rotation by the angle $\varphi$ and, with damping, a
    contraction by $e^{-\sigma}$. The position is $q = g z_1$, and a kick $u$ has become $u\,(\sin\psi, \cos\psi)$ at
    the end of its step. With the drive $d$ cut into chunks of steps,

    $$e = d E, \qquad s = (z_0, e)\, M, \qquad q = d A + s N,$$

    where $e$ is what the kicks of a chunk add to the state at its end, $s$ are the states between the chunks, and $q$
    the positions after every step.

    Without damping the echo applies the inverse rotations, which is exact to rounding. With damping that would be gain.
    The path is then computed again from the state before the block, and no inverse occurs anywhere. The machine is
    linear, so d/dβ of its motion is the same for any nudge. It is computed directly, without an ensemble, and it runs
    back by the transposes of the same matrices: the same machine, on reversed errors.
    """

    oscillators: LinearOscillators | DampedOscillators
    kick_to_node: Float[Array, "units chunk chunk"]  # A
    kick_to_end: Float[Array, "units chunk 2"]  # E
    start_to_node: Float[Array, "units 2 chunk"]  # N
    between: Float[Array, "units states states"]  # M

    def __init__(self, oscillators: LinearOscillators | DampedOscillators, length: int) -> None:
        self.oscillators = oscillators
        # With the barrier the backward pass makes the matrices by the same code, which is compiled once.
        turns = _Turns(jax.lax.optimization_barrier(oscillators))
        n = min(length, _CHUNK)
        step, start = np.arange(n), np.arange(length // n + 1)
        gain = oscillators.gain[:, None, None]
        # To turn by θ is z₁ ← z₁ cos θ + z₂ sin θ, z₂ ← z₂ cos θ - z₁ sin θ.
        lag = step[None] - step[:, None]
        self.kick_to_node = gain * turns(lag, _SIN, kick=True, kept=lag >= 0)
        self.kick_to_end = turns(n - 1 - step[:, None], np.array([_SIN, _COS]), kick=True)
        self.start_to_node = gain * turns(step + 1, np.array([[_COS], [_SIN]]))
        lag = (start[None] - start[:, None])[:, None, :, None]
        sign, kind = np.array([[1, -1], [1, 1]])[:, None], np.array([[_COS, _SIN], [_SIN, _COS]])[:, None]
        pairs = turns(n * lag, kind, sign=sign, kept=lag >= 0)
        self.between = pairs.reshape(-1, 2 * start.size, 2 * start.size)

    @property
    def lossy(self) -> bool:
        return isinstance(self.oscillators, DampedOscillators)

    def enter(self, state: State) -> PyTree:
        q, p = (x.reshape(x.shape[0], -1) for x in state)
        gain, shear, weight = self._frame
        return jnp.stack([q / gain, shear * q + weight * p], -1)

    def leave(self, z: PyTree, like: State) -> State:
        gain, shear, weight = self._frame
        q = gain * z[..., 0]
        return q.reshape(like[0].shape), ((z[..., 1] - shear * q) / weight).reshape(like[1].shape)

    @property
    def _frame(self) -> list[Float[Array, "units 1"]]:
        return [x[:, None] for x in (self.oscillators.gain, *self.oscillators.frame)]

    def run(self, z: PyTree, drive: Wide) -> tuple[PyTree, Wide]:
        chunks = self._chunked(drive)
        states = product(jnp.concatenate([z, _joined(product(chunks, self.kick_to_end), z)], -1), self.between)
        return states[..., -2:], reshaped(self._positions(chunks, states), *drive.shape)

    def turn(self, z: PyTree) -> PyTree:
        # The echo applies the inverse rotation, without a flip of the momenta.
        return z

    def retrace(self, z: PyTree, drive: Wide) -> tuple[PyTree, Wide, Any]:
        chunks = self._chunked(drive)
        ends = _joined(product(chunks, self.kick_to_end), z)
        if self.lossy:
            states = product(jnp.concatenate([z, ends], -1), self.between)
        else:
            came = jnp.concatenate([jnp.zeros_like(z), ends], -1)
            end = jnp.pad(z, ((0, 0), (0, 0), (came.shape[-1] - 2, 0)))
            states = came + product(end - came, _transposed(self.between))
        q, z = reshaped(self._positions(chunks, states), *drive.shape), states[..., :2]
        first = self.oscillators.gain[:, None] * z[..., 0]
        before = jnp.concatenate([first.reshape(*q.shape[:-1], 1), q[..., :-1]], -1)
        return z, q, before + q - 0.5 * drive

    def strength(self, z: PyTree, load: Float[Array, ""], steps: int) -> Any:
        return jnp.ones_like(load)

    def start(self, z: PyTree, beta: Any, bar: State | None) -> PyTree:
        nudged, last = jnp.zeros_like(z), jnp.zeros_like(z[..., 0])
        if bar is not None:
            nudged, last = jax.vjp(lambda z: self.leave(z, bar), z)[1](bar)[0], -0.5 * bar[0].reshape(last.shape)
        # With damping, also the position of the nudged machine, which `respond` needs at the next block.
        return (nudged, last) if self.lossy else nudged

    def respond(self, beta: Any, nudged: PyTree, path: Any, drive: Wide, push: Wide) -> tuple[PyTree, PyTree, Wide]:
        oscillators = self.oscillators
        nudged, last = nudged if self.lossy else (nudged, jnp.zeros(()))
        chunks = self._chunked(push)
        came = jnp.concatenate([_joined(product(chunks, _transposed(self.start_to_node)), nudged), nudged], -1)
        states = product(came, _transposed(self.between))
        bar_drive = product(chunks, _transposed(self.kick_to_node))
        bar_drive += _spanned(_cut(states[..., 2:]), _transposed(self.kick_to_end))
        bar_drive = reshaped(bar_drive, *drive.shape)
        # `path` is (2 - a/2) times the position at the half steps, where the drive kicks, and `bar_drive` is d_β q. So
        # their product reads ∂H/∂a = q²/2.
        overlap = jnp.sum(jax.lax.optimization_barrier(path * bar_drive), (1, 2, 3))
        if isinstance(oscillators, LinearOscillators):
            bar_angle = -2 * jnp.tan(0.5 * oscillators.angle) * overlap
            return states[..., :2], LinearOscillators(bar_angle), bar_drive
        # The reading of the damping is 2 Σ p d_β p: half the path times the change of d_β q from the half step to the
        # node. Differences first: a slow oscillator hardly changes.
        after = jnp.concatenate([bar_drive[..., 1:], last.reshape(*drive.shape[:-1], 1)], -1)
        half_stiffness = (0.5 * oscillators.stiffness)[:, None, None, None]
        change = bar_drive - after + 0.5 * push - half_stiffness * bar_drive
        lost = jnp.sum(jax.lax.optimization_barrier(path * change), (1, 2, 3)) / oscillators.slack
        nudged = states[..., :2], bar_drive[..., 0].reshape(last.shape)
        return nudged, oscillators.readings(overlap, lost), bar_drive

    def finish(self, beta: Any, nudged: PyTree, first: State) -> State:
        return jax.vjp(self.enter, first)[1](nudged[0] if self.lossy else nudged)[0]

    def check(self, x: Any, beta: Any, nudged: PyTree, load: Float[Array, ""], steps: int) -> Any:
        # The response is computed directly. Nothing is subtracted, so no digits are lost.
        return x

    def _chunked(self, x: Wide) -> Float[Array, "units chunks chunk"]:
        return reshaped(x, x.shape[0], -1, self.kick_to_node.shape[-1])

    def _positions(self, chunks: Array, states: Array) -> Array:
        """Return the positions after every step, from the kicks and from the states at the start of the chunks."""
        return product(chunks, self.kick_to_node) + _spanned(_cut(states[..., :-2]), self.start_to_node)


_SIN, _COS = 0, 1


class _Turns(eqx.Module):
    r"""Tables of $e^{-\sigma t} \sin(\varphi t + \psi + k \pi/2)$ for all oscillators.

    A phase is a fraction of a turn in fixed point, with a rest that multiples of the phase keep. They wrap around
    exactly, so a rotation by many steps is the power of the rotation by one step, without a growing error.
    """

    oscillators: LinearOscillators | DampedOscillators

    def __call__(
        self, steps: np.ndarray, quarters: Any, *, kick: bool = False, sign: Any = 1, kept: Any = True
    ) -> Array:
        r"""Return a table, with the oscillators first.

        Args:
            steps: $t$, integers of at least 0 where `kept`.
            quarters: $k$, integers.
            kick: whether to add $\psi$.
            sign: sign of the phase.
            kept: where to return 0 instead, false.
        """
        steps, quarters, sign, kept = np.broadcast_arrays(steps, quarters, sign, kept)
        lead = self.oscillators.lead if kick else None
        table = kept.astype(self.oscillators.angle.dtype)[None] * _sines(
            self.oscillators.angle, lead, sign * steps, quarters
        )
        if isinstance(self.oscillators, LinearOscillators):
            return table
        times = np.where(kept, steps, 0).astype(table.dtype)[None]
        return table * jnp.exp(-_along(self.oscillators.decay, times.ndim) * times)


def _along(x: Float[Array, " units"], ndim: int) -> Array:
    return jnp.expand_dims(x, tuple(range(1, ndim)))


def _sines(
    angle: Float[Array, " units"], lead: Float[Array, " units"] | None, steps: np.ndarray, quarters: Any
) -> Array:
    """Return the sines of `steps` rotations, plus the lead and quarter turns, for every oscillator."""

    @jax.custom_jvp
    def sines(angle: Array, lead: Array | None) -> Array:
        bits = 8 * angle.dtype.itemsize
        unsigned, signed = np.dtype(f"uint{bits}"), np.dtype(f"int{bits}")
        whole, rest = (_along(x, steps.ndim + 1) for x in _fixed(angle))
        phase = whole * steps.astype(unsigned)[None] + (quarters.astype(unsigned) << (bits - 2))[None]
        rest = rest * steps.astype(rest.dtype)[None]
        if lead is not None:
            more, remainder = (_along(x, steps.ndim + 1) for x in _fixed(lead))
            phase, rest = phase + more, rest + remainder
        phase = jax.lax.bitcast_convert_type(phase, signed).astype(rest.dtype) + rest
        # The barrier keeps XLA from fusing the sine into its uses, where it would be computed again.
        return jax.lax.optimization_barrier(jnp.sin(phase * (2 * math.pi / 2**bits)))

    # The fixed-point phase has no derivative in JAX. The echo does not need it; derivatives of an echo do.
    @sines.defjvp
    def sines_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
        (angle, lead), (change, led) = primals, tangents
        turned = _sines(angle, lead, steps, quarters + 1)
        change = steps.astype(turned.dtype)[None] * _along(change, turned.ndim)
        return sines(angle, lead), turned * (change if lead is None else change + _along(led, turned.ndim))

    return sines(angle, lead)


_TURNS_PER_RADIAN = Fraction("0.15915494309189533576888376337251436203445964574045644874766734405889679763422653509")


def _fixed(x: Float[Array, " units"]) -> tuple[Array, Float[Array, " units"]]:
    """Return angles between 0 and π in units of a turn / 2^bits: a whole number, and the rest.

    A rounding error here would be an error of the frequency, which grows with the steps. So the product with 1/2π is
    exact: both factors are split into parts of half the digits.
    """
    info = np.finfo(x.dtype)
    half = (info.nmant + 1) // 2
    factors, left = [], _TURNS_PER_RADIAN * 2**info.bits
    for _ in range(3):
        digits = half - 1 - math.floor(math.log2(left))
        factors.append(Fraction(math.floor(left * Fraction(2) ** digits)) / Fraction(2) ** digits)
        left -= factors[-1]
    first, second, third = (float(factor) for factor in factors)
    unsigned = np.dtype(f"uint{info.bits}")
    mask = np.asarray(-1 << (info.nmant + 1 - half)).astype(unsigned)
    high = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, unsigned) & mask, x.dtype)
    low = x - high
    terms = jnp.stack([high * first, high * second, low * first, low * second + high * third])
    floors = jnp.floor(terms)
    return jnp.sum(floors.astype(unsigned), 0, unsigned), jnp.sum(terms - floors, 0)


def _transposed(matrices: Array) -> Array:
    return jnp.swapaxes(matrices, 1, 2)


def _joined(pairs: Float[Array, "units chunks 2"], z: Float[Array, "units rows 2"]) -> Float[Array, "units rows pairs"]:
    """Concatenate the pairs of all chunks of a row."""
    return pairs.reshape(*z.shape[:2], -1)


def _cut(states: Float[Array, "units rows pairs"]) -> Float[Array, "units chunks 2"]:
    return reshaped(states, states.shape[0], -1, 2)


def _spanned(z: Float[Array, "units chunks 2"], matrix: Float[Array, "units 2 times"]) -> Array:
    """Return the matrix product, written out because it is too narrow for a fast one."""
    return z[..., :1] * matrix[:, None, 0] + z[..., 1:] * matrix[:, None, 1]
