"""Whether a system is linear and reciprocal along a path: the measurement, and the check of `Reciprocal`."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from .._internal._errors import refuse_if
from ..problem import Problem
from ..problem._run import index
from ..systems import Dissipative


class Twist(eqx.Module):
    """The matrix S of a twisted reciprocity, on flat coordinates, and its inverse."""

    matrix: Float[Array, "n n"]
    inverse: Float[Array, "n n"]

    def __call__(self, x: PyTree) -> PyTree:
        return _apply(self.matrix, x)

    def undone(self, x: PyTree) -> PyTree:
        """Return S⁻¹ x."""
        return _apply(self.inverse, x)


def twist_of(system: Dissipative, like: PyTree) -> Twist:
    """Return the twist of a system with coordinates shaped like `like`."""
    matrix = dense(system.twisted, like)
    return Twist(matrix, jnp.linalg.inv(matrix))


def dense(f: Any, like: PyTree, at: PyTree = None) -> Float[Array, "n n"]:
    """Return the Jacobian, on flat coordinates, of a map between trees shaped like `like`, at zero or at a point."""
    flat, unravel = jax.flatten_util.ravel_pytree(_tree.zeros_like(like) if at is None else at)
    return jax.jacfwd(lambda x: _tree.flat(f(unravel(x))))(flat)


def _apply(matrix: Float[Array, "n n"], x: PyTree) -> PyTree:
    flat, unravel = jax.flatten_util.ravel_pytree(x)
    return unravel(matrix @ flat)


class Reciprocity(eqx.Module):
    r"""Relative violations of linearity and reciprocity along a path; zero where they hold.

    Attributes:
        forces: nonlinearity of the forces.
        friction: nonlinearity of the friction and the inertia, the larger one.
        mass: violation of $M S = S M^{\sf T}$.
        damping: violation of $D S = S D^{\sf T}$.
        stiffness: violation of $K S = S K^{\sf T}$, the largest along the path.
        drift: change of the stiffness in time.
        skewness: violation of $S = S^{\sf T}$.
    """

    forces: Float[Array, ""]
    friction: Float[Array, ""]
    mass: Float[Array, ""]
    damping: Float[Array, ""]
    stiffness: Float[Array, ""]
    drift: Float[Array, ""]
    skewness: Float[Array, ""]


def relative(x: Array, *scales: Array) -> Float[Array, ""]:
    """Return the norm of `x` over the sum of the norms of `scales`; 0/0 is zero."""
    scale = sum((_tree.norm(s) for s in scales), jnp.zeros((), x.dtype))
    return _tree.norm(x) / jnp.where(scale == 0, 1, scale)


def _by_entry(x: Array, scale: Array) -> Float[Array, ""]:
    """Return the largest ratio of an entry of `x` to that of `scale`; 0/0 is zero."""
    return jnp.max(jnp.abs(x) / jnp.where(scale == 0, 1, scale), initial=0)


def _nonlinearity(f: Any, matrix: Float[Array, "n n"], x: Float[Array, " n"], unravel: Any) -> Float[Array, ""]:
    """Return the deviation of `f` from `f(0) + matrix x` at a point: of its value, entry by entry, or of its slope."""
    zero = f(unravel(jnp.zeros_like(x)))
    value, linear = f(unravel(x)), matrix @ x
    scale = jnp.abs(value) + jnp.abs(zero) + jnp.abs(matrix) @ jnp.abs(x)
    return jnp.maximum(_by_entry(value - zero - linear, scale), _asymmetry(dense(f, unravel(x), unravel(x)), matrix))


def _asymmetry(a: Float[Array, "n n"], b: Float[Array, "n n"]) -> Float[Array, ""]:
    """Return the difference of two coupling matrices, each entry relative to the scale of its row and its column."""
    rows = jnp.sqrt(jnp.max(jnp.abs(a) + jnp.abs(b), axis=1, initial=0))
    return _by_entry(a - b, rows[:, None] * rows[None])


def reciprocity(problem: Problem, path: PyTree) -> Reciprocity:
    """Measure linearity and reciprocity of the problem's system along a path of coordinates at all nodes."""
    given, q0 = problem.given, _tree.take(path, 0)
    system = given.system
    unravel = jax.flatten_util.ravel_pytree(q0)[1]
    twist = dense(system.twisted, q0)
    mass, damping = dense(system.inertia, q0), dense(system.friction, q0)
    steps = jax.vmap(_tree.flat)(path)

    def violation(x: Float[Array, "n n"]) -> Float[Array, ""]:
        if type(system).twisted is Dissipative.twisted:
            return _asymmetry(x, x.T)
        return relative(x @ twist - twist @ x.T, x) / jnp.linalg.norm(twist, 2)

    def force_at(k: Int[Array, ""]) -> Any:
        t = given.t0 + (k.astype(given.h.dtype) + 0.5) * given.h
        return lambda q: _tree.flat(system.force(t, q, given.at(k).u))

    first = -dense(force_at(index(0)), q0)

    def body(worst: Any, row: Any) -> tuple[Any, None]:
        k, x, y = row
        force, v = force_at(k), (y - x) / given.h
        matrix = -dense(force, q0)
        bent = _nonlinearity(force, -matrix, 0.5 * (x + y), unravel)
        flat = lambda f: lambda v: _tree.flat(f(v))  # noqa: E731
        friction = _nonlinearity(flat(system.friction), damping, v, unravel)
        inertia = _nonlinearity(flat(system.inertia), mass, v, unravel)
        now = jnp.stack(
            [bent, jnp.maximum(friction, inertia), violation(matrix), relative(matrix - first, first, matrix)]
        )
        return jnp.maximum(worst, now), None

    k = jnp.arange(problem.steps, dtype=jnp.int32)
    worst, _ = jax.lax.scan(body, jnp.zeros(4, steps.dtype), (k, steps[:-1], steps[1:]))
    skewness = relative(twist - twist.T, twist)
    return Reciprocity(worst[0], worst[1], violation(mass), violation(damping), worst[2], worst[3], skewness)


def reciprocal_tolerance(dtype: Any) -> float:
    """Return the default tolerance: larger violations of linearity and reciprocity are not rounding errors."""
    return 1e4 * float(jnp.finfo(dtype).eps)


def check_reciprocity(x: Any, problem: Problem, path: PyTree, tolerance: float | None, contrastive: bool) -> Any:
    """Return `x`, or raise at run time if the system is not linear and reciprocal, as the gradient needs."""
    found = reciprocity(problem, path)
    if tolerance is None:
        tolerance = reciprocal_tolerance(found.mass.dtype)
    nonlinearity = jnp.maximum(found.forces, found.friction)
    x = refuse_if(
        x,
        ~(nonlinearity <= tolerance),
        f"Reciprocal: the system is nonlinear (relative deviation {{}}, tolerance {tolerance:.1g}), "
        "so the error field is not a motion of the machine itself. Under general damping no drive and no initial "
        "state make it one: proven impossible on the same hardware. If the damping is in proportion to the mass, use "
        "Echo() on MassDamped(system, rate); without damping, Echo() on the Hamiltonian; otherwise Backprop().",
        nonlinearity,
    )
    asymmetry = jnp.maximum(jnp.maximum(found.mass, found.damping), found.stiffness)
    x = refuse_if(
        x,
        ~(asymmetry <= tolerance),
        f"Reciprocal: the system is not reciprocal (relative asymmetry {{}}, tolerance {tolerance:.1g}): "
        "its mass, damping or stiffness matrix is not symmetric (S M^T S^-1 "
        "= M and so on, with its twist S), so the machine's answer to the reversed error is not the adjoint field. "
        "Make the matrices symmetric, declare the `twisted` map S under which they are (diagnose looks for one), or "
        "use Backprop().",
        asymmetry,
    )
    if not contrastive:
        return x
    change = jnp.maximum(found.drift, found.skewness)
    return refuse_if(
        x,
        ~(change <= tolerance),
        "Reciprocal: the contrastive form pairs a record with itself, so the stiffness must not change in time and a "
        f"twist must be symmetric, S = S^T. The relative deviation is {{}}, the tolerance {tolerance:.1g}. Use "
        "Reciprocal() without a nudge, which replays time dependence reversed.",
        change,
    )
