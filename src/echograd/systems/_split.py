"""Energies that are sums of parts with known flows, and ready-made parts."""

import abc
import contextlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PyTree

from .._internal import _checks, _tree
from .._internal._energy import reading, slope
from .._internal._errors import ArgumentError, ArgumentTypeError
from ._base import Hamiltonian, Scalar, SeparableHamiltonian
from ._propagator import evolved
from ._transform import Ends, real_modes, transformed

State = tuple[PyTree, PyTree]


class AbstractPart(eqx.Module):
    r"""An energy $A(q, p)$ whose equations of motion have a closed solution.

    `SplitHamiltonian.parts` creates the parts anew for every step, from parameters, time and input, which are constant
    during it. Write the flow in real arithmetic of coordinates and momenta, so that a complex nudge can pass through.

    Example:
        ```python
        class Rotation(eg.systems.AbstractPart):  # oscillators of frequency 1
            def __call__(self, q, p):
                return 0.5 * jnp.sum(q**2 + p**2)

            def flow(self, q, p, s):
                return jnp.cos(s) * q + jnp.sin(s) * p, jnp.cos(s) * p - jnp.sin(s) * q

        q, p = Rotation().flow(q, p, 0.1)
        ```
    """

    @abc.abstractmethod
    def __call__(self, q: PyTree, p: PyTree) -> Scalar:
        """Return the energy $A$."""

    @abc.abstractmethod
    def flow(self, q: PyTree, p: PyTree, s: Scalar) -> State:
        """Return the state after a time `s` under this energy alone; `s` may be negative."""

    def action(self, q: PyTree, p: PyTree, s: Scalar) -> Scalar:
        r"""Return $\int_0^s [\tfrac12 (p \cdot \dot q - q \cdot \dot p) - A]\,d\tau$ along the flow from here.

        By default $s\,(\tfrac12 z \cdot \nabla A - A)$. This is right if it is conserved along the flow, as for
        energies of $q$ alone, of $p$ alone, of intensities $|\psi_j|^2$, and for homogeneous polynomials. Override it
        for any other part, or the readings of an echo are wrong.
        """
        dq, dp = slope(lambda z: self(*z), (q, p))
        return s * (0.5 * (_tree.dot(q, dq) + _tree.dot(p, dp)) - self(q, p))


class Kinetic(AbstractPart):
    r"""A function of the momenta alone; its flow is a drift.

    Args:
        energy: `(p) -> scalar`.

    Example:
        ```python
        eg.systems.Kinetic(lambda p: 0.5 * jnp.sum(p**2))
        ```
    """

    energy: Callable[[PyTree], Scalar]

    def __check_init__(self) -> None:
        _checks.function("Kinetic", "energy", self.energy, "(p) -> scalar")

    def __call__(self, q: PyTree, p: PyTree) -> Scalar:
        return self.energy(p)

    def flow(self, q: PyTree, p: PyTree, s: Scalar) -> State:
        return _tree.add(q, _tree.scale(s, slope(self.energy, p))), p


class Potential(AbstractPart):
    r"""A function of the coordinates alone; its flow is a kick.

    Args:
        energy: `(q) -> scalar`.

    Example:
        ```python
        eg.systems.Potential(lambda q: 0.25 * jnp.sum(q**4))
        ```
    """

    energy: Callable[[PyTree], Scalar]

    def __check_init__(self) -> None:
        _checks.function("Potential", "energy", self.energy, "(q) -> scalar")

    def __call__(self, q: PyTree, p: PyTree) -> Scalar:
        return self.energy(q)

    def flow(self, q: PyTree, p: PyTree, s: Scalar) -> State:
        return q, _tree.subtract(p, _tree.scale(s, slope(self.energy, q)))


class Intensities(AbstractPart):
    r"""A function of the intensities $I_j = |\psi_j|^2 = \tfrac12 (q_j^2 + p_j^2)$; its flow rotates every phase.

    Intensities are conserved, so $\psi_j \to e^{-i s\,\partial A/\partial I_j}\,\psi_j$: detunings, potentials, Kerr,
    cross-Kerr and saturable nonlinearities.

    Args:
        energy: `(intensities) -> scalar`; the intensities have the structure and shapes of the coordinates.

    Example:
        ```python
        eg.systems.Intensities(lambda i: jnp.sum(detuning * i + 0.5 * kerr * i**2))
        ```
    """

    energy: Callable[[PyTree], Scalar]

    def __check_init__(self) -> None:
        _checks.function("Intensities", "energy", self.energy, "(intensities) -> scalar")

    def __call__(self, q: PyTree, p: PyTree) -> Scalar:
        return self.energy(_intensities(q, p))

    def flow(self, q: PyTree, p: PyTree, s: Scalar) -> State:
        angles = _tree.scale(s, slope(self.energy, _intensities(q, p)))
        cos, sin = jax.tree.map(jnp.cos, angles), jax.tree.map(jnp.sin, angles)
        rotated = lambda c, x, s, y: c * x + s * y  # noqa: E731
        return jax.tree.map(rotated, cos, q, sin, p), jax.tree.map(rotated, cos, p, _tree.negate(sin), q)


def _intensities(q: PyTree, p: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: 0.5 * (x**2 + y**2), q, p)


class Hopping(AbstractPart):
    r"""Linear coupling of the sites of a wave, $\psi^\dagger K \psi$ with a Hermitian matrix.

    The flow is $\psi \to e^{-isK} \psi$, exactly. Coordinates that are a PyTree are flattened to the $n$ sites.

    Args:
        matrix: shape (n, n), real or complex; only its Hermitian part $\tfrac12(K + K^\dagger)$ is used. Its
            off-diagonal elements are the hopping amplitudes, in units of frequency. Complex conjugation reverses a
            real one; a complex one needs a mirror that transposes it.

    Example:
        ```python
        eg.systems.Hopping(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
        ```
    """

    matrix: Float[Array, "n n"] | Complex[Array, "n n"]

    def __check_init__(self) -> None:
        matrix = _checks.finite("Hopping", "matrix", _checks.numbers("Hopping", "matrix", self.matrix))
        shape = getattr(matrix, "shape", ())
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ArgumentError(f"Hopping: matrix={_checks.shown(self.matrix)} is not a square matrix.")

    def __call__(self, q: PyTree, p: PyTree) -> Scalar:
        q, p = (_tree.flat(x) for x in (q, p))
        k = self._hermitian()
        energy = 0.5 * (q @ (k.real @ q) + p @ (k.real @ p))
        return energy - q @ (k.imag @ p) if jnp.iscomplexobj(k) else energy

    def flow(self, q: PyTree, p: PyTree, s: Scalar) -> State:
        (q, unravel), (p, _) = jax.flatten_util.ravel_pytree(q), jax.flatten_util.ravel_pytree(p)
        q, p = evolved(self._hermitian(), s, q, p)
        return unravel(q), unravel(p)

    def action(self, q: PyTree, p: PyTree, s: Scalar) -> Scalar:
        return jnp.zeros_like(s)

    def _hermitian(self) -> Array:
        return 0.5 * (self.matrix + self.matrix.T.conj())


class Dispersion(AbstractPart):
    r"""A wave on a grid whose linear part is diagonal in sine or Fourier modes, $\sum_k \omega_k |\hat\psi_k|^2$.

    The flow rotates every mode, $\hat\psi_k \to e^{-i s \omega_k} \hat\psi_k$, between two fast transforms.

    Args:
        frequencies: $\omega_k$, of the shape of the grid. With periodic ends in the order of `jnp.fft.fftfreq`, and
            even in the wave number along every axis.
        ends: `"open"` for a field that vanishes just outside the grid (sine modes), `"periodic"` for Fourier modes.

    Example:
        ```python
        modes = jnp.pi * jnp.arange(1, 65) / 65
        eg.systems.Dispersion(0.5 * modes**2, "open")
        ```
    """

    frequencies: Float[Array, "..."]
    ends: Ends = eqx.field(static=True)

    def __check_init__(self) -> None:
        _checks.signed("Dispersion", "frequencies", self.frequencies)
        _checks.choice("Dispersion", "ends", self.ends, ("open", "periodic"))

    def __call__(self, q: PyTree, p: PyTree) -> Scalar:
        if jnp.iscomplexobj(q) or jnp.iscomplexobj(p):
            return 0.5 * sum((jnp.sum(self.frequencies * real_modes(x, self.ends) ** 2) for x in (q, p)), jnp.zeros(()))
        bent = [transformed(x, self.frequencies, self.ends) for x in (q, p)]
        return 0.5 * _tree.dot([q, p], bent)

    def flow(self, q: PyTree, p: PyTree, s: Scalar) -> State:
        cos, sin = jnp.cos(s * self.frequencies), jnp.sin(s * self.frequencies)
        if jnp.iscomplexobj(q) or jnp.iscomplexobj(p):
            q, p = real_modes(q, self.ends), real_modes(p, self.ends)
            return real_modes(cos * q + sin * p, self.ends), real_modes(cos * p - sin * q, self.ends)
        psi = transformed(jax.lax.complex(q, p), jax.lax.complex(cos, -sin), self.ends)
        return psi.real, psi.imag

    def action(self, q: PyTree, p: PyTree, s: Scalar) -> Scalar:
        return jnp.zeros_like(s)


class Drive(AbstractPart):
    r"""A source: $i \dot\psi = f$, from the energy $f^* \psi + f \psi^*$.

    Args:
        source: $f$, a complex array of the shape of the field.

    Raises:
        ArgumentError: (at its first use) if the source has another shape than the field.

    Example:
        ```python
        eg.systems.Drive(jnp.array([0.1 + 0.2j, 0.0]))
        ```
    """

    source: Complex[Array, "..."]

    def __check_init__(self) -> None:
        _checks.finite("Drive", "source", _checks.numbers("Drive", "source", self.source))

    def __call__(self, q: PyTree, p: PyTree) -> Scalar:
        f, g = self._forces(q)
        return jnp.sum(f * q) + jnp.sum(g * p)

    def flow(self, q: PyTree, p: PyTree, s: Scalar) -> State:
        f, g = self._forces(q)
        return q + s * g, p - s * f

    def _forces(self, q: PyTree) -> tuple[Array, Array]:
        if jnp.shape(self.source) != q.shape:
            raise ArgumentError(
                f"Drive: the source of one step has shape {jnp.shape(self.source)}, but the field has {q.shape}. "
                "Give one number for every entry of the field; as inputs, after their leading axis of steps."
            )
        return 2**0.5 * self.source.real, 2**0.5 * self.source.imag


class SplitHamiltonian(Hamiltonian):
    r"""A system whose energy is a sum of parts, each with a known flow: $H = \sum_i A_i(t, q, p, u; \theta)$.

    Write a subclass with `parts`; its array fields are the trainable parameters. `SplitStep` composes the flows.
    A `SeparableHamiltonian` is the special case of a `Kinetic` and a `Potential` part.

    For a wave $\psi = (q + ip)/\sqrt 2$, $i \dot\psi = \partial H/\partial \psi^*$, time reversal is complex
    conjugation; see `canonical` and `wave`.

    Example:
        ```python
        class Dimer(eg.SplitHamiltonian):
            coupling: Array
            kerr: Array

            def parts(self, t, u):
                nonlinear = eg.systems.Intensities(lambda i: 0.5 * self.kerr * jnp.sum(i**2))
                return nonlinear, eg.systems.Hopping(self.coupling * jnp.array([[0.0, 1.0], [1.0, 0.0]]))

        dimer, start = Dimer(jnp.asarray(1.0), jnp.asarray(0.5)), eg.InitialValue(*eg.canonical(jnp.array([1.0, 0.0])))
        sol = eg.solve(dimer, start, dt=0.05, steps=100)
        ```
    """

    @abc.abstractmethod
    def parts(self, t: Scalar, u: Any) -> tuple[AbstractPart, ...]:
        """Return the parts. The input `u` is constant during one step.

        `SplitStep` applies the last part once per step and the others twice, for half a step each. So put the
        costliest last.
        """

    def __call__(self, t: Scalar, q: PyTree, p: PyTree, u: Any) -> Scalar:
        """Return the sum of the parts."""
        return sum((part(q, p) for part in self.parts(t, u)), jnp.zeros(()))


def parts_of(system: Hamiltonian, t: Scalar, u: Any) -> tuple[AbstractPart, ...]:
    """Return the parts of a system; those of a separable one are its kinetic and its potential energy."""
    if isinstance(system, SplitHamiltonian):
        return system.parts(t, u)
    if isinstance(system, SeparableHamiltonian):
        return Kinetic(lambda p: system.kinetic(t, p)), Potential(lambda q: system.potential(t, q, u))
    raise ArgumentTypeError(
        f"{type(system).__name__} does not define the parts of its energy: it is neither a SplitHamiltonian nor a "
        "SeparableHamiltonian. Derive it from one of these, or pass integrator=ImplicitMidpoint()."
    )


def flow_and_read(
    make: Callable[[PyTree], tuple[AbstractPart, Scalar]], wanted: PyTree, z: State
) -> tuple[State, PyTree]:
    r"""Apply the flow of the part, for the time, that `make(wanted)` returns. Return the state and the reading.

    The reading is $-\int_0^s \partial A/\partial\theta\,d\tau$ along the flow. With the action $\mathcal S$ of the part
    and the end $(q', p')$ of its flow it is $\partial_\theta (\mathcal S + \tfrac12 (\bar q' \cdot p' - \bar p' \cdot
    q'))$, where barred quantities are not differentiated. For at a fixed start $\delta \mathcal S$ is the reading plus
    $\tfrac12 (p' \cdot \delta q' - q' \cdot \delta p')$.
    """
    # Real parameters may meet a state made complex by a complex nudge. This promotion is intended.
    complex_state = any(jnp.iscomplexobj(x) for x in jax.tree.leaves(z))

    def promoting() -> contextlib.AbstractContextManager:
        return jax.numpy_dtype_promotion("standard") if complex_state else contextlib.nullcontext()

    def action(wanted: PyTree, path: tuple[State, State]) -> Scalar:
        start, stop = path
        part, s = make(wanted)
        with promoting():
            (q, p), along = part.flow(*start, s), part.action(*start, s)
        return along + 0.5 * (_tree.dot(stop[0], p) - _tree.dot(stop[1], q))

    part, s = make(wanted)
    with promoting():
        after = part.flow(*z, s)
    return after, reading(action, wanted, (z, after))
