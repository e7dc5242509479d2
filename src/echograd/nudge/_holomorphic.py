"""Complex nudges on a circle: Cauchy's formula for d/dβ."""

import cmath
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, refuse_if
from ._base import Scalar
from ._finite import AbstractFiniteNudge, Stencil, Strength, check_strength

# Above this the final state is not a holomorphic function of β well inside the disc.
_LARGEST_LEAK = 0.1


def _unit(angle: float) -> complex:
    """Return exp(i angle), without the rounding of cos(π/2): the real parts of two nudges must cancel exactly."""
    z = cmath.rect(1.0, angle)
    return complex(*(0.0 if abs(x) < 1e-15 else x for x in (z.real, z.imag)))


class Holomorphic(AbstractFiniteNudge):
    r"""Complex nudges on a circle of radius $r$, by Cauchy's formula: error $O(r^M)$ with $M$ points.

    $$\frac{df}{d\beta} \approx \frac{1}{M r} \sum_{k=0}^{M-1} f(r e^{i\varphi_k})\, e^{-i\varphi_k}, \quad
    \varphi_k = \frac{2\pi}{M} (k + \tfrac12)$$

    The echo runs with a complex state; parameters, inputs and cotangents stay real. Because the free trajectory is
    real, $f(\bar\beta) = \overline{f(\beta)}$, so only the $M/2$ points of the upper half circle are run. These are far
    apart, so there is less cancellation than with real nudges of the same order. Two points are one run at $i r$, the
    complex-step derivative: nothing is subtracted, so $r$ may be as small as 1e-20 and the result is exact to rounding.

    The energies and costs must be holomorphic in the state: polynomials, `exp`, `sin`, `tanh`, `sqrt` are, and so are
    Legendre transforms of holomorphic functions. `abs`, `max`, `sign`, `real`, `conj`, and functions built of them, are
    not and raise an error. `where` may compare the state, as in `where(q > 0, q**2, 0)`: complex numbers are compared
    by their real parts. All points of the circle must be on the same side of the condition, and on the same branch of
    the energy, as the free trajectory. The measure for this is the *imaginary leak*

    $$\ell = |a_{-1}| / |a_1|, \quad a_m = \frac{1}{M r} \sum_k f(r e^{i\varphi_k})\, e^{-i m \varphi_k},$$

    the response to the conjugate of the nudge. It is $O(r^{M-2})$ for a function that is holomorphic in the disc, and
    of order one otherwise. Every echo measures it on its final state and raises above 0.1; `leak()` measures it for
    every parameter. A physical machine cannot take complex nudges; use `Richardson` there.

    Args:
        radius: radius of the circle, in the units of a strength, or `"auto"` (see `Symmetric`).
        points: number of points M, even.

    Raises:
        ArgumentError: if `radius` is another string or not a scalar, or `points` is not a positive even number.
        ArgumentTypeError: (when the echo is compiled) if an energy or cost is not holomorphic or fails for complex
            input.
        RunError: (at run time) if the radius is zero or not finite, if the nudge is lost in rounding, or if the
            leak is too large.

    Source: A. Laborieux and F. Zenke, arXiv 2209.00530, for equilibrium propagation; J. N. Lyness and C. B. Moler,
    SIAM J. Numer. Anal. 4 (1967) 202, for Cauchy's formula and the complex step.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo(eg.Holomorphic(0.1, points=8)))
        ```
    """

    beta: Any
    power: int = eqx.field(static=True)

    def __init__(self, radius: Strength = "auto", points: int = 8) -> None:
        self.beta = check_strength("Holomorphic", radius, "radius")
        self.power = _checks.integer("Holomorphic", "points", points, 2, what="the number of points")
        if self.power % 2:
            raise ArgumentError(
                f"Holomorphic: points={points} is odd. Points come in conjugate pairs: pass an even number."
            )

    @property
    def nodes(self) -> tuple[complex, ...]:
        return tuple(_unit(2 * math.pi * (k + 0.5) / self.power) for k in range(self.power // 2))

    @property
    def weights(self) -> tuple[complex, ...]:
        return tuple(2 / self.power * n.conjugate() for n in self.nodes)

    def leak(self) -> AbstractFiniteNudge:
        """Return a nudge that reads $a_{-1}$, the response to the conjugate of the nudge, instead of $d/dβ$.

        The norm of its gradient over that of this nudge is the imaginary leak of a parameter.
        """
        if self.power == 2:
            raise ArgumentError(
                "Holomorphic: two points cannot distinguish the leak from the response. Use at least four."
            )
        return Stencil(self.beta, self.nodes, self._conjugated, self.power)

    @property
    def _conjugated(self) -> tuple[complex, ...]:
        return tuple(w.conjugate() for w in self.weights)

    def error(self) -> AbstractFiniteNudge:
        # The points half-way between have the same error with the opposite sign.
        m = self.power
        between = tuple(_unit(2 * math.pi * k / m) for k in range(m // 2 + 1))
        counts = (1, *[2] * (m // 2 - 1), 1)
        weights = [-0.5 * c / m * n.conjugate() for c, n in zip(counts, between, strict=True)]
        return Stencil(self.beta, (*self.nodes, *between), (*(w / 2 for w in self.weights), *weights), m)

    def check(self, x: Any, beta: Scalar, ensemble: PyTree, load: Scalar, steps: int, sizes: PyTree = None) -> Any:
        if self.power == 2:
            return x  # nothing is subtracted, so no digits are lost; a leak cannot be measured
        x = super().check(x, beta, ensemble, load, steps, sizes)
        along = _tree.norm(self._combined(beta, ensemble, self.weights))
        against = _tree.norm(self._combined(beta, ensemble, self._conjugated))
        leak = against / jnp.where(along > 0, along, 1)
        return refuse_if(
            x,
            (load > 0) & ~(leak <= _LARGEST_LEAK),
            f"Holomorphic: the imaginary leak is {{}}, above {_LARGEST_LEAK}: "
            "the final state of the echo responds to the conjugate of the nudge. The radius is too large "
            "(the circle leaves the branch of the energy that the trajectory is on: lower it), or so small that "
            "rounding dominates (raise it), or an energy is not holomorphic there. Infinitesimal() has no radius.",
            leak,
        )
