"""A static problem: an energy of a state in a box, under a dead load."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._internal import _tree
from .._internal._energy import slope
from .._internal._errors import ArgumentTypeError


class Equilibrium(eqx.Module):
    """A state of rest, as `equilibrium` returns it.

    Attributes:
        state: the state of rest, differentiable by the gradient that was chosen.
        energy: its energy. The derivatives are those at fixed state, since the state is stationary.
        residual: largest force left over, in energy per coordinate, without forces that press a coordinate against its
            bound.
        steps: number of steps that the relaxation took.
        converged: whether the residual is within the tolerance.

    Example: see `equilibrium`.
    """

    state: PyTree
    energy: Float[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


class StaticProblem(eqx.Module):
    r"""An energy $E(s, u; \theta)$ tilted by a load to $E - \langle \text{load}, s \rangle$.

    A nudge enters a static system as a load: $L = -E$, so $L + \beta c$ is $E - \beta c$.
    """

    energy: Callable[[PyTree, PyTree], Float[Array, ""]]
    inputs: PyTree
    load: PyTree
    bounds: tuple[float, float] | None = eqx.field(static=True)
    throw: bool = eqx.field(static=True)

    def value(self, s: PyTree) -> Float[Array, ""]:
        """Return the energy without the load."""
        if not _is_complex(s):
            return self.energy(s, self.inputs)
        # A holomorphic nudge makes the state complex, while the parameters stay real.
        with jax.numpy_dtype_promotion("standard"):
            return self.energy(s, self.inputs)

    def force(self, s: PyTree) -> PyTree:
        r"""Return $\text{load} - \partial E/\partial s$."""
        pull = slope(self.value, s)
        return _tree.negate(pull) if self.load is None else _tree.subtract(self.load, pull)

    def stiffness(self, s: PyTree, ds: PyTree) -> PyTree:
        r"""Return $\partial^2 E/\partial s^2 \cdot ds$."""
        return jax.jvp(jax.grad(self.value), (s,), (ds,))[1]

    def clip(self, s: PyTree) -> PyTree:
        """Return `s` moved into the box."""
        if self.bounds is None:
            return s
        if _is_complex(s):
            raise ArgumentTypeError(
                "equilibrium: clipping to a box is not a holomorphic function of the state, so Holomorphic() cannot "
                "nudge a state in bounds. Use Symmetric(beta) or Richardson(beta, order), or an energy with smooth "
                "walls."
            )
        low, high = self.bounds
        return jax.tree.map(lambda x: jnp.clip(x, jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype)), s)

    def free(self, s: PyTree, force: PyTree) -> PyTree:
        """Return which coordinates are free to move: all except those that the force presses against a bound."""
        if self.bounds is None:
            return jax.tree.map(lambda x: jnp.ones(x.shape, bool), s)
        low, high = self.bounds
        return jax.tree.map(lambda x, f: ~(((x <= low) & (f < 0)) | ((x >= high) & (f > 0))), s, force)

    def unbalanced(self, s: PyTree, force: PyTree) -> PyTree:
        """Return the part of the force that no bound takes up."""
        return force if self.bounds is None else only(self.free(s, force), force)

    def loaded(self, load: PyTree) -> "StaticProblem":
        """Return the problem under another load."""
        return StaticProblem(self.energy, self.inputs, load, self.bounds, self.throw)


def _is_complex(s: PyTree) -> bool:
    return any(jnp.iscomplexobj(x) for x in jax.tree.leaves(s))


def only(mask: PyTree, x: PyTree) -> PyTree:
    """Return `x` where `mask` holds, and zero elsewhere."""
    return jax.tree.map(lambda m, y: jnp.where(m, y, jnp.zeros_like(y)), mask, x)


def symmetric(problem: StaticProblem, s: PyTree, x: Any, who: str) -> Any:
    """Return `x`, or raise at run time if the stiffness at `s` is not symmetric: the force then has no energy."""
    a, b = _tree.spread(s, 0), _tree.spread(s, 1)
    ka, kb = problem.stiffness(s, a), problem.stiffness(s, b)
    size = _tree.norm(ka) * _tree.norm(b) + _tree.norm(kb) * _tree.norm(a)
    tolerance = 1e3 * float(jnp.finfo(size.dtype).eps)
    return eqx.error_if(
        x,
        jnp.abs(_tree.dot(b, ka) - _tree.dot(a, kb)) > tolerance * size,
        f"{who}: the derivative of the force is not symmetric, so the force is not the slope of an energy, and nudged "
        "equilibria do not give a gradient. A custom derivative in the energy may be wrong, or stand for an "
        "asymmetric coupling. Make the couplings symmetric, or use Implicit() with solver=Newton(), which needs no "
        "symmetry.",
    )
