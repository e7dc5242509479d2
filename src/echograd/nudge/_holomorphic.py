"""Complex nudges on a circle: Cauchy's formula for d/dβ."""

import cmath
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, refuse_if
from ._finite import AbstractFiniteNudge, Stencil, Strength, check_strength

# Above this the response of the final state is not that of a holomorphic function well inside its disc.
_LARGEST_LEAK = 0.1


def _unit(angle: float) -> complex:
    """Return exp(i angle), without the rounding of cos(π/2): the real parts of two nudges must cancel exactly."""
    z = cmath.rect(1.0, angle)
    return complex(*(0.0 if abs(x) < 1e-15 else x for x in (z.real, z.imag)))


class Holomorphic(AbstractFiniteNudge):
    r"""Complex nudges on a circle of radius $r$, by Cauchy's formula: error $O(r^M)$ with $M$ points.

    $$\frac{df}{d\beta} \approx \frac{1}{M r} \sum_{k=0}^{M-1} f(r e^{i\varphi_k})\, e^{-i\varphi_k}, \quad
    \varphi_k = \frac{2\pi}{M} (k + \tfrac12)$$

    The echo is run with a complex state; parameters, inputs and cotangents stay real. Because the free trajectory is
    real, $f(\bar\beta) = \overline{f(\beta)}$, and the $M/2$ points of the upper half circle are all that is run. Far
    apart, they lose nothing to cancellation where real nudges of the same order do. Two points are one run at
    $i r$, the complex-step derivative: nothing is subtracted, so that $r$ may be as small as 1e-20 and the result is
    exact to rounding.

    The energies and costs must be holomorphic in the state: polynomials, `exp`, `sin`, `tanh`, `sqrt` are, and so are
    Legendre transforms of what is; `abs`, `max`, `sign`, `real`, `conj`, and what is built of them, are not and are
    refused. `where` may compare the state, `where(q > 0, q**2, 0)`: complex numbers are compared by their real parts,
    and the circle must not reach across the condition. It must stay inside the branch that the free trajectory is on.
    What tells is the *imaginary leak*

    $$\ell = |a_{-1}| / |a_1|, \quad a_m = \frac{1}{M r} \sum_k f(r e^{i\varphi_k})\, e^{-i m \varphi_k},$$

    the response that turns against the nudge: it is $O(r^{M-2})$ for a function that is holomorphic in the disc, and of
    order one otherwise. Every echo measures it on its final state and raises above 0.1; `leak()` reads it off every
    parameter. A physical machine cannot be nudged so; use `Richardson` there.

    Args:
        radius: radius of the circle, in the units of a strength, or `"auto"` (see `Symmetric`).
        points: number of points M, even.

    Raises:
        ValueError: if `radius` is another string or not a scalar, or `points` is not a positive even number.
        TypeError: (when the echo is compiled) if an energy or cost is not holomorphic or refuses complex input.
        RuntimeError: (at run time) if the radius is zero or not finite, if the nudge is lost in rounding, or if the
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
                f"Holomorphic: points={points} is odd. Points come in conjugate pairs, of which one is run: take an "
                "even number."
            )

    @property
    def nodes(self) -> tuple[complex, ...]:
        return tuple(_unit(2 * math.pi * (k + 0.5) / self.power) for k in range(self.power // 2))

    @property
    def weights(self) -> tuple[complex, ...]:
        return tuple(2 / self.power * n.conjugate() for n in self.nodes)

    def leak(self) -> AbstractFiniteNudge:
        """Return the nudge that reads the response against the nudge, $a_{-1}$, in the place of $d/dβ$.

        Its gradient over that of this nudge, in norm, is the imaginary leak of a parameter.

        Raises:
            ValueError: with two points, where $a_{-1}$ and $a_1$ are the same number.
        """
        if self.power == 2:
            raise ArgumentError("Holomorphic: two points cannot tell the leak from the response. Use at least four.")
        return Stencil(self.beta, self.nodes, self._against, self.power)

    @property
    def _against(self) -> tuple[complex, ...]:
        return tuple(w.conjugate() for w in self.weights)

    def error(self) -> AbstractFiniteNudge:
        # The points half-way between make the same error with the other sign.
        m = self.power
        between = tuple(_unit(2 * math.pi * k / m) for k in range(m // 2 + 1))
        counts = (1, *[2] * (m // 2 - 1), 1)
        weights = [-0.5 * c / m * n.conjugate() for c, n in zip(counts, between, strict=True)]
        return Stencil(self.beta, (*self.nodes, *between), (*(w / 2 for w in self.weights), *weights), m)

    def check(
        self,
        x: Any,
        beta: Float[Array, ""],
        ensemble: PyTree,
        load: Float[Array, ""],
        steps: int,
        sizes: PyTree = None,
    ) -> Any:
        if self.power == 2:
            return x  # nothing is subtracted, so nothing is lost; and no leak can be told
        x = AbstractFiniteNudge.check(self, x, beta, ensemble, load, steps, sizes)
        along = _tree.norm(self._combined(beta, ensemble, self.weights))
        against = _tree.norm(self._combined(beta, ensemble, self._against))
        leak = against / jnp.where(along > 0, along, 1)
        return refuse_if(
            x,
            (load > 0) & ~(leak <= _LARGEST_LEAK),
            f"Holomorphic: the imaginary leak is {{}}, above {_LARGEST_LEAK}: "
            "the final state of the echo answers the conjugate of the nudge. The circle is too wide "
            "(it leaves the branch of the energy that the trajectory is on: lower the radius), or so small that "
            "rounding shows (raise it), or an energy is not holomorphic there. Infinitesimal() has no such limits.",
            leak,
        )
