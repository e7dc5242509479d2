"""Acoustic waves on a grid, with point sources and receivers."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._internal import _checks
from .._internal._errors import ArgumentError
from ._base import Scalar, SeparableHamiltonian
from ._parameter import check_shapes, converted
from ._stencils import LAPLACIAN, between, corners, courant_limit, sampled, stored_energy

# Points per shortest wavelength below which the phase error of one order exceeds about 1 % per wavelength.
POINTS = {2: 10.0, 4: 5.0, 8: 3.5}


class Resolution(NamedTuple):
    """How a grid and a step resolve a wave.

    Attributes:
        courant: the largest $c h / a$ on the grid.
        limit: the largest stable one.
        points: grid points per shortest wavelength.
    """

    courant: float
    limit: float
    points: float


class AcousticField(SeparableHamiltonian):
    r"""Acoustic waves on a grid in two or three dimensions, driven at points.

    $$\frac{1}{\rho c^2}\, \ddot q = \nabla \cdot \Bigl(\frac1\rho \nabla q\Bigr) + \sum_s u_s(t)\, \delta(x - x_s)$$

    for the pressure $q$, and with constant density $\ddot q = c^2 (\nabla^2 q + \sum_s u_s \delta(x - x_s))$. It is the
    motion of

    $$H = \sum_{\rm cells} \frac{\rho c^2 p^2}{2\, c_0 a} + c_0 a \Bigl[\frac{|\nabla q|^2}{2 \rho}
    - \sum_s u_s\, \delta_a(x - x_s)\, q\Bigr], \qquad \dot q = \frac{\rho c^2}{c_0 a}\, p$$

    with the spacing $a$. The reference speed $c_0$ only sets the unit of the momentum, so that $p$ has the size of
    $q$. Derivatives are central differences of order 2, 4 or 8. Sources and receivers may lie anywhere: $\delta_a$ is
    linear interpolation along every axis (bilinear, trilinear). Outside of the grid $q = 0$, so bare sides reflect like
    a free surface. Let the other sides absorb with `Damped(field, friction.Border(...))`.

    Trainable: `speed`, `density`, `sources`, `receivers`, the inputs and the initial field.

    Args:
        speed: $c$ in every cell, length/time, shape of the grid (two or three axes). Positive.
        spacing: $a$, a length. A constant number.
        order: of the differences in space: 2, 4 or 8.
        density: $\rho$ in every cell, shape of the grid, or `None` for 1 everywhere. Positive.
        sources: their positions, lengths from the first cell along every axis, shape (sources, axes), or `None`.
        receivers: likewise, for `received`.
        free_surface: whether the field is continued oddly beyond the wall before the first row (one spacing outside of
            the grid), which keeps the order of the differences there.
        reference: $c_0$, a constant; by default a power of two near the mean speed. Needed if `speed` is traced.

    The input `u` of a step holds the source strengths, shape (sources,).

    Raises:
        ArgumentError: if shapes do not fit together, a position is outside of the grid, or a number is not positive.

    Source: A. R. Levander, Geophysics 53 (1988) 1425 (staggered differences of order 4); B. Fornberg, Math. Comp. 51
    (1988) 699 (weights).

    Example:
        ```python
        field = eg.systems.AcousticField(jnp.full((60, 60), 1500.0), spacing=10.0, sources=[[200.0, 300.0]])
        field.resolution(dt=0.002, frequency=20.0)  # Resolution(courant=0.3, limit=0.612..., points=7.5)
        border = eg.friction.Border.quadratic(cells=15, speed=1500.0, spacing=10.0)
        damped = eg.Damped(field, border)
        pulse = jnp.exp(-((jnp.arange(100.0) * 0.002 - 0.06) / 0.02) ** 2)
        rest = eg.InitialValue(jnp.zeros((60, 60)), jnp.zeros((60, 60)))
        exact = eg.Leapfrog(exact=True, bits=17)
        sol = eg.solve(damped, rest, pulse[:, None], dt=0.002, integrator=exact, save=eg.FinalNode())
        ```
    """

    speed: Float[Array, "..."] = eqx.field(converter=converted, metadata={"sign": "positive"})
    spacing: float = eqx.field(static=True)
    order: int = eqx.field(static=True)
    density: Float[Array, "..."] | None
    sources: Float[Array, "sources axes"] | None
    receivers: Float[Array, "receivers axes"] | None
    free_surface: bool = eqx.field(static=True)
    reference: float = eqx.field(static=True)

    def __init__(
        self,
        speed: Any,
        spacing: float = 1.0,
        *,
        order: int = 4,
        density: Any = None,
        sources: Any = None,
        receivers: Any = None,
        free_surface: bool = False,
        reference: float | None = None,
    ) -> None:
        who = "AcousticField"
        self.speed = _checks.signed(who, "speed", converted(speed), "positive")
        self.spacing = _checks.constant(who, "spacing", spacing, _checks.positive, "a length must be positive")
        if isinstance(order, bool) or not isinstance(order, int | np.integer) or order not in LAPLACIAN:
            raise ArgumentError(f"{who}: order={_checks.shown(order)}; there are differences of order 2, 4 and 8.")
        self.order = int(order)
        self.density = None if density is None else _checks.signed(who, "density", converted(density), "positive")
        self.sources = None if sources is None else _checks.signed(who, "sources", converted(sources))
        self.receivers = None if receivers is None else _checks.signed(who, "receivers", converted(receivers))
        self.free_surface = _checks.flag(who, "free_surface", free_surface)
        if reference is None:
            if isinstance(self.speed, Tracer):
                raise ArgumentError(
                    f"{who}: the speed is traced, so the unit of the momentum cannot be chosen from it. Pass "
                    "reference=2000.0, say: a constant speed of the size of the speeds."
                )
            reference = 2.0 ** round(math.log2(float(np.mean(np.asarray(self.speed)))))
        self.reference = _checks.constant(who, "reference", reference, _checks.positive, "a speed must be positive")

    def __check_init__(self) -> None:
        super().__check_init__()
        if self.speed.ndim not in (2, 3) or not self.speed.size:
            raise ArgumentError(
                f"AcousticField: speed has shape {self.speed.shape}; give one number per cell of a grid with two or "
                "three axes."
            )
        for name in ("sources", "receivers"):
            positions = getattr(self, name)
            if positions is None:
                continue
            if positions.ndim != 2 or positions.shape[1] != self.speed.ndim:
                raise ArgumentError(
                    f"AcousticField: {name} has shape {positions.shape}; give one row per point and a length along "
                    f"each of the {self.speed.ndim} axes."
                )
            if not isinstance(positions, Tracer):
                self._check_inside(name, np.asarray(positions))

    def _check_inside(self, name: str, positions: Any) -> None:
        ends = self.spacing * (np.asarray(self.speed.shape) - 1)
        outside = np.any((positions < 0) | (positions > ends * (1 + 1e-6)), 1)
        if outside.any():
            i = int(np.argmax(outside))
            raise ArgumentError(
                f"AcousticField: {name}[{i}] is at {positions[i].tolist()}, outside of the grid, which reaches "
                f"from 0 to {ends.tolist()}. Positions are lengths from the first cell, borders included."
            )

    def kinetic(self, t: Scalar, p: Float[Array, "..."]) -> Scalar:
        check_shapes(self, p.shape, "speed", number=False)
        square = (self.speed * p) ** 2
        return jnp.sum(square if self.density is None else self.density * square) / (2 * self.reference * self.spacing)

    def potential(self, t: Scalar, q: Float[Array, "..."], u: Any) -> Scalar:
        buoyancy = None
        if self.density is not None:
            check_shapes(self, q.shape, "density", number=False)
            buoyancy = [1 / between(self.density, axis) for axis in range(q.ndim)]
        energy = stored_energy(q, buoyancy, self._loads(q, u), self.spacing, self.order, self.free_surface)
        return self.reference * self.spacing * energy

    def _loads(self, q: Array, u: Any) -> Any:
        if u is None:
            return None
        if self.sources is None or jax.tree.map(jnp.shape, u) != self.sources.shape[:1]:
            count = 0 if self.sources is None else len(self.sources)
            raise ArgumentError(
                f"AcousticField: the input of one step is {_checks.shown(u)}, and the field has {count} sources. Pass "
                "inputs of shape (steps, sources)."
            )
        cells, weights = corners((self.sources / self.spacing).astype(q.dtype), q.shape)
        return cells, weights * (u / self.spacing**q.ndim)[:, None].astype(q.dtype)

    def received(self, q: Float[Array, "..."]) -> Float[Array, " receivers"]:
        """Return the pressure at the receivers, for `save=lambda t, q, p: field.received(q)`."""
        if self.receivers is None:
            raise ArgumentError("AcousticField: the field has no receivers. Pass receivers=, their positions.")
        return sampled(q, (self.receivers / self.spacing).astype(q.dtype))

    def resolution(self, dt: Any, frequency: Any) -> Resolution:
        r"""Return the Courant number and the points per wavelength of a run, or raise if they do not suffice.

        Args:
            dt: step length.
            frequency: the highest frequency that must be resolved, 1/time: for a Ricker wavelet about 2.5 times its
                peak frequency.

        Raises:
            ArgumentError: if the Courant number $c h / a$ is above the limit of leapfrog, or the points per wavelength
                $c / (f a)$ below 10, 5 and 3.5 at order 2, 4 and 8.
        """
        who = "AcousticField.resolution"
        dt = _checks.constant(who, "dt", dt, _checks.positive, "a step must be positive")
        frequency = _checks.constant(who, "frequency", frequency, _checks.positive, "a frequency must be positive")
        speed = np.asarray(self.speed)
        fastest, slowest = float(speed.max()), float(speed.min())
        limit = courant_limit(self.order, speed.ndim, self.density is not None)
        courant, points = fastest * dt / self.spacing, slowest / (frequency * self.spacing)
        if courant > limit:
            raise ArgumentError(
                f"{who}: the Courant number c dt / spacing is {courant:.4g}, above {limit:.4g}, the limit of leapfrog "
                f"with differences of order {self.order} on {speed.ndim} axes. Shorten dt to "
                f"{limit * self.spacing / fastest:.4g}."
            )
        least = POINTS[self.order]
        if points < least:
            raise ArgumentError(
                f"{who}: there are {points:.3g} points per shortest wavelength, and differences of order {self.order} "
                f"need {least:g}. Use a spacing of {slowest / (frequency * least):.4g}, a higher order, or lower "
                "frequencies."
            )
        return Resolution(courant, limit, points)

    def start(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Return $(q, p)$ of a bump in the middle, at rest, about six cells wide."""
        axes = [jnp.arange(n, dtype=self.speed.dtype) - (n - 1) / 2 for n in self.speed.shape]
        squares = [(x**2).reshape([-1 if i == axis else 1 for i in range(len(axes))]) for axis, x in enumerate(axes)]
        q = jnp.exp(-sum(squares[1:], squares[0]) / 18)
        return q, jnp.zeros_like(q)
