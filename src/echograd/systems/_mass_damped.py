"""Damping in proportion to mass: an ordinary Hamiltonian with explicit time dependence."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _tree
from ._base import Scalar, SeparableHamiltonian


class MassDamped(SeparableHamiltonian):
    r"""A separable system $H_0 = T + V$ damped in proportion to its mass: $L = e^{\gamma t} L_0$.

    $$H = e^{\gamma t}\, T(t, e^{-\gamma t} p) + e^{\gamma t}\, V(t, q, u), \qquad
    \frac{d}{dt} \pi = -\frac{\partial V}{\partial q} - \gamma \pi, \quad \pi = e^{-\gamma t} p$$

    with $\pi$ the momentum of $H_0$, a mass times a velocity where $T$ is quadratic. The coordinates are the physical
    ones. The momentum $p$ that `solve` works with is the canonical one; `mechanical` takes it to $\pi$, and at $t = 0$
    the two are the same. `InitialValue(q, v=...)` takes physical velocities at any time.

    This energy is even in the momentum whenever $T$ is, and depends on time explicitly. An echo plays explicit time
    dependence backwards, so the ordinary `Echo()` is exact on it, nonlinear forces and the gradient with respect to
    the rate included. Seen in the variables $(q, \pi)$ that echo is the machine with its damping turned into gain,
    nudged and read with the weight $e^{\gamma t}$; in $x = e^{\gamma t/2} q$ it is an undamped machine whose springs
    change with time. The three are one map. What it costs is dynamic range: whatever does not decay (a driven response,
    an equilibrium off the origin) covers what the start has left behind, so over a time T an echo loses a factor
    $e^{\gamma T/2}$ in precision. Every echo measures whether it has come back, and raises if not.

    A damping that is not proportional to mass has no such form: see `LinearDamped` and `Reciprocal`.

    Args:
        system: the undamped system; its trainable leaves stay trainable.
        rate: damping rate $\gamma$, one number, in inverse units of time. Negative for gain. An array is trainable, a
            Python number is a constant.

    Raises:
        TypeError: if the system is not a `SeparableHamiltonian`.
        ValueError: if the rate is not one finite number.
        RuntimeError: (at run time) if $e^{\gamma |t|}$ does not fit the dtype.

    Source: P. Caldirola, Nuovo Cimento 18 (1941) 393; E. Kanai, Prog. Theor. Phys. 3 (1948) 440; damping by gain:
    arXiv 2506.06248 and appendix C of "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci).

    Example:
        ```python
        damped = eg.MassDamped(Chain(jnp.ones(7)), rate=jnp.asarray(0.3))
        sol = eg.solve(damped, eg.InitialValue(q, v=v), dt=0.01, steps=1000)  # an exact echo
        velocity_times_mass = jax.vmap(damped.mechanical)(sol.t, sol.p)
        ```
    """

    system: SeparableHamiltonian
    rate: Any

    def __init__(self, system: SeparableHamiltonian, rate: float | Float[Array, ""]) -> None:
        self.system = system
        self.rate = float(rate) if isinstance(rate, int | float) else jnp.asarray(rate)

    def __check_init__(self) -> None:
        if not isinstance(self.system, SeparableHamiltonian):
            raise TypeError(
                f"MassDamped: the system is a {type(self.system).__name__}, not a SeparableHamiltonian. For a "
                "Lagrangian multiply it by exp(rate * t) yourself; for general damping see LinearDamped and Reciprocal."
            )
        if isinstance(self.rate, float):
            if not math.isfinite(self.rate):
                raise ValueError(f"MassDamped(rate={self.rate!r}): the rate must be finite.")
        elif self.rate.shape != () or not jnp.issubdtype(self.rate.dtype, jnp.floating):
            raise ValueError(
                f"MassDamped: the rate is one real number, and got an array of shape {self.rate.shape} and dtype "
                f"{self.rate.dtype}. A rate of its own for every mass is a general damping: see LinearDamped."
            )

    def mechanical(self, t: Scalar, p: PyTree) -> PyTree:
        r"""Return $\pi = e^{-\gamma t} p$, the momentum of the undamped system, from the canonical one."""
        return _tree.scale(jnp.exp(-self.rate * t), p)

    def kinetic(self, t: Scalar, p: PyTree) -> Scalar:
        return jnp.exp(self.rate * t) * self.system.kinetic(t, self.mechanical(t, p))

    def potential(self, t: Scalar, q: PyTree, u: Any) -> Scalar:
        return jnp.exp(self.rate * t) * self.system.potential(t, q, u)

    def mirror(self, q: PyTree) -> PyTree:
        return self.system.mirror(q)

    def mirror_input(self, u: Any) -> Any:
        return self.system.mirror_input(u)

    def admitted(self, z: Any, start: Scalar, stop: Scalar) -> Any:
        z = self.system.admitted(z, start, stop)
        exponent = jnp.abs(self.rate * jnp.maximum(jnp.abs(start), jnp.abs(stop)))
        limit = math.log(float(jnp.finfo(exponent.dtype).max)) - 10  # room for the energy that is multiplied
        return eqx.error_if(
            z,
            ~(exponent <= limit),
            "MassDamped: exp(rate * t) leaves the range of the dtype (rate * t beyond 78 in float32, 699 in float64), "
            "so that the canonical momentum exp(rate * t) * mass * velocity cannot be held. Shorten the run, start "
            "it at t0 = 0, use float64, or use Reciprocal() if the system is linear: it needs no such range.",
        )
