"""Waves of Schroedinger type: complex fields as canonical states, a Kerr lattice, a nonlinear field."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PyTree

from .._internal import _checks
from .._internal._errors import ArgumentError, ArgumentTypeError
from .._internal._tree import complexified
from ._base import Scalar
from ._parameter import as_parameter, converted
from ._split import AbstractPart, Dispersion, Drive, Hopping, Intensities, SplitHamiltonian
from ._transform import Ends


def canonical(psi: PyTree) -> tuple[PyTree, PyTree]:
    r"""Return the coordinates and momenta of a complex wave, $\psi = (q + ip)/\sqrt 2$; the inverse of `wave`.

    Then $i\dot\psi = \partial H/\partial\psi^*$, the intensity is $|\psi|^2 = \tfrac12(q^2 + p^2)$, and time reversal
    is complex conjugation.

    Args:
        psi: PyTree of arrays, complex or real.

    Returns:
        `(q, p)`, PyTrees of real arrays.

    Example:
        ```python
        start = eg.InitialValue(*eg.canonical(jnp.array([1.0 + 1.0j, 0.0])))
        ```
    """
    psi = _checks.finite("canonical", "psi", _checks.numbers("canonical", "psi", psi))
    if not jax.tree.leaves(psi):
        raise ArgumentError(f"canonical: psi={_checks.shown(psi)} has no arrays.")
    return jax.tree.map(lambda x: 2**0.5 * x.real, psi), jax.tree.map(lambda x: 2**0.5 * x.imag, psi)


def wave(q: PyTree, p: PyTree) -> PyTree:
    r"""Return the complex wave $\psi = (q + ip)/\sqrt 2$; the inverse of `canonical`.

    Args:
        q: coordinates, a PyTree of real arrays.
        p: momenta, likewise.

    Returns:
        PyTree of complex arrays.

    Example:
        ```python
        lattice = eg.systems.KerrLattice()
        sol = eg.solve(lattice, eg.InitialValue(*lattice.start()), dt=0.01, steps=100)
        intensity = jnp.abs(eg.wave(sol.q, sol.p)) ** 2
        ```
    """
    q, p = _checks.pair("wave", "(q, p)", (q, p), nan=True)
    return jax.tree.map(lambda x, y: 0.5**0.5 * jax.lax.complex(x, y), q, p)


def _real(owner: str, name: str, x: Any, like: Array) -> Array:
    """Return `x` as a real array of the precision of `like`; a complex one would mean gain or loss."""
    return _checks.signed(owner, name, converted(x)).astype(like.real.dtype)


def _complex(owner: str, name: str, x: Any) -> Array:
    """Return `x` as an array of finite numbers, real or complex."""
    x = _checks.finite(owner, name, _checks.numbers(owner, name, converted(x)))
    if not isinstance(x, jax.Array):
        raise ArgumentTypeError(f"{owner}: {name}={_checks.shown(x)} is not one array of numbers.")
    return as_parameter(x)


class KerrLattice(SplitHamiltonian):
    r"""Coupled modes with a Kerr nonlinearity: cavities, waveguides, resonators, or cold atoms on sites.

    $$H = \sum_j \bigl(\Delta_j |\psi_j|^2 + \tfrac12 g_j |\psi_j|^4\bigr) + \psi^\dagger K \psi, \qquad
    i\dot\psi_j = \Delta_j \psi_j + g_j |\psi_j|^2 \psi_j + \sum_k K_{jk} \psi_k \;(+ f_j)$$

    Coordinates are any PyTree that flattens to $n$ sites. The optional input `u` is the drive $f$, complex of
    shape (n,).

    Args:
        hopping: $K$, shape (n, n), real or complex; only its Hermitian part is used. By default a chain of 6 sites.
        detuning: $\Delta$, shape (n,), or one number.
        kerr: $g$, shape (n,), or one number.
        reflection: for complex hoppings, the permutation $\Pi$ of sites (an involution, as indices) under which the
            lattice is PT-symmetric: $\Pi K \Pi = K^\top$, $\Pi\Delta = \Delta$, $\Pi g = g$. `None` is the identity,
            for a real hopping matrix.

    Raises:
        ArgumentError: for shapes that do not fit, or a reflection that is not an involution.

    Source: V. Lopez-Pastor and F. Marquardt, PRX 13 (2023) 031020; for the mirror the Kerr row of "Unifying Physical
    Backpropagation", theorem 8.1.

    Example:
        ```python
        ring = jnp.roll(jnp.eye(4), 1, 0)
        lattice = eg.systems.KerrLattice(ring + ring.T, detuning=jnp.zeros(4), kerr=jnp.asarray(0.5))
        start = eg.InitialValue(*eg.canonical(jnp.array([1.0, 0.0, 0.0, 1.0j])))
        sol = eg.solve(lattice, start, dt=0.05, steps=100)
        ```
    """

    hopping: Float[Array, "n n"] | Complex[Array, "n n"]
    detuning: Float[Array, " n"] | Scalar
    kerr: Float[Array, " n"] | Scalar
    reflection: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, hopping: Any = None, detuning: Any = 0.0, kerr: Any = 1.0, reflection: Any = None) -> None:
        hopping = np.eye(6, k=1) + np.eye(6, k=-1) if hopping is None else hopping
        self.hopping = _complex("KerrLattice", "hopping", hopping)
        self.detuning, self.kerr = (
            _real("KerrLattice", name, x, self.hopping) for name, x in (("detuning", detuning), ("kerr", kerr))
        )
        sites = None if reflection is None else np.asarray(reflection)
        if sites is not None and (sites.ndim != 1 or sites.dtype.kind not in "iu"):
            raise ArgumentError(f"KerrLattice: reflection={_checks.shown(reflection)} is not a sequence of indices.")
        self.reflection = None if sites is None else tuple(sites.tolist())

    def __check_init__(self) -> None:
        shape = self.hopping.shape
        if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
            raise ArgumentError(
                f"KerrLattice: hopping has shape {shape}; give a square matrix, one row for every site."
            )
        n = shape[0]
        for name, x in (("detuning", self.detuning), ("kerr", self.kerr)):
            if x.shape not in ((), (n,)):
                raise ArgumentError(
                    f"KerrLattice: {name} has shape {x.shape}; give one number, or one for each of the {n} sites."
                )
        if self.reflection is not None:
            sites, image = np.arange(n), np.asarray(self.reflection)
            if sorted(image) != sites.tolist() or not np.array_equal(image[image], sites):
                raise ArgumentError(
                    f"KerrLattice: reflection={self.reflection} is not an involution of the {n} sites: applied twice, "
                    "it must map every site to itself."
                )

    def parts(self, t: Scalar, u: Any) -> tuple[AbstractPart, ...]:
        def local(intensities: PyTree) -> Scalar:
            i, _ = jax.flatten_util.ravel_pytree(intensities)
            return jnp.sum(self.detuning * i) + 0.5 * jnp.sum(self.kerr * i**2)

        drive = () if u is None else (Drive(u),)
        return (Intensities(local), *drive, Hopping(self.hopping))

    def start(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Return $(q, p)$ of a wave on the first two sites, with phases a quarter turn apart."""
        psi = jnp.zeros(self.hopping.shape[0], complexified(self.hopping.dtype))
        return canonical(psi.at[:2].set(jnp.asarray([1.0, 1.0j])[: psi.size].astype(psi.dtype)))

    def mirror(self, q: PyTree) -> PyTree:
        if self.reflection is None:
            return q
        flat, unravel = jax.flatten_util.ravel_pytree(q)
        return unravel(flat[jnp.asarray(self.reflection)])

    def mirror_input(self, u: Any) -> Any:
        return None if u is None else jnp.conj(self.mirror(u))


class NonlinearSchroedinger(SplitHamiltonian):
    r"""A nonlinear Schroedinger field on a grid. Its linear part is solved exactly in sine or Fourier modes.

    $$i\dot\psi = -\tfrac12 D\,\nabla^2 \psi + V \psi + g |\psi|^2 \psi \;(+ f)$$

    The grid may have any dimension: coordinates have the shape of the potential. The optional input `u` is the source
    $f$, complex of that shape.

    Args:
        potential: $V$ on the grid; by default an empty line of 64 points.
        nonlinearity: $g$, one number or of the shape of the grid; positive repels.
        dispersion: $D$, one number: $\hbar/m$ for a particle, the diffraction coefficient of a beam.
        spacing: distance of grid points, in units of length.
        ends: `"open"`, a field that vanishes one spacing outside the grid, or `"periodic"`.

    Raises:
        ArgumentError: for shapes or `ends` that do not fit.

    Source: J. A. C. Weideman and B. M. Herbst, SIAM J. Numer. Anal. 23 (1986) 485; the wave field of V. Lopez-Pastor
    and F. Marquardt, PRX 13 (2023) 031020.

    Example:
        ```python
        x = jnp.linspace(-10, 10, 128, endpoint=False)
        field = eg.systems.NonlinearSchroedinger(0 * x, nonlinearity=-1.0, spacing=20 / 128, ends="periodic")
        soliton = eg.InitialValue(*eg.canonical(1 / jnp.cosh(x)))
        sol = eg.solve(field, soliton, dt=0.01, steps=100)
        ```
    """

    potential: Float[Array, "..."]
    nonlinearity: Float[Array, "..."]
    dispersion: Scalar
    spacing: float = eqx.field(static=True)
    ends: Ends = eqx.field(static=True)

    def __init__(
        self,
        potential: Any = None,
        nonlinearity: Any = -1.0,
        dispersion: Any = 1.0,
        *,
        spacing: float = 1.0,
        ends: Ends = "open",
    ) -> None:
        owner = "NonlinearSchroedinger"
        self.potential = _checks.signed(owner, "potential", converted(np.zeros(64) if potential is None else potential))
        self.nonlinearity = _real(owner, "nonlinearity", nonlinearity, self.potential)
        self.dispersion = _real(owner, "dispersion", dispersion, self.potential)
        self.spacing = _checks.constant(owner, "spacing", spacing, _checks.positive, "a length must be positive")
        self.ends = _checks.choice(owner, "ends", ends, ("open", "periodic"))

    def __check_init__(self) -> None:
        grid = self.potential.shape
        if (
            not self.potential.size
            or not grid
            or self.nonlinearity.shape not in ((), grid)
            or self.dispersion.shape != ()
        ):
            raise ArgumentError(
                f"NonlinearSchroedinger: potential has shape {grid}, nonlinearity {self.nonlinearity.shape}, "
                f"dispersion {self.dispersion.shape}. Give the potential one number per grid point, the nonlinearity "
                "the same shape or one number, and the dispersion one number."
            )

    def parts(self, t: Scalar, u: Any) -> tuple[AbstractPart, ...]:
        def local(i: Array) -> Scalar:
            return jnp.sum(self.potential * i) + 0.5 * jnp.sum(self.nonlinearity * i**2)

        drive = () if u is None else (Drive(u),)
        return (Intensities(local), *drive, Dispersion(0.5 * self.dispersion * self._wave_numbers(), self.ends))

    def start(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Return $(q, p)$ of a Gaussian in mid-grid that moves along the first axis, one radian per point."""
        psi = jnp.ones((), complexified(self.potential.dtype))
        for axis, n in enumerate(self.potential.shape):
            x = np.arange(n) - 0.5 * (n - 1)
            line = np.exp(-0.5 * (8 * x / n) ** 2 + 1j * x * (axis == 0))
            psi = psi[..., None] * jnp.asarray(line, psi.dtype)
        return canonical(psi)

    def mirror_input(self, u: Any) -> Any:
        return None if u is None else jnp.conj(u)

    def _wave_numbers(self) -> Float[Array, "..."]:
        """Return the squared wave numbers of the modes."""
        total = np.zeros(())
        for n in self.potential.shape:
            k = np.pi * np.arange(1, n + 1) / (n + 1) if self.ends == "open" else 2 * np.pi * np.fft.fftfreq(n)
            total = total[..., None] + (k / self.spacing) ** 2
        return jnp.asarray(total, self.potential.dtype)
