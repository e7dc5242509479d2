"""Relaxations that follow the force."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import jax.scipy.sparse.linalg
from jaxtyping import Array, PyTree

from .._internal import _checks, _tree
from ._base import AbstractRelaxation
from ._static_problem import StaticProblem, only, symmetric


def check_limits(name: str, tolerance: Any, max_steps: Any) -> None:
    """Raise if a tolerance or a number of steps is out of range."""
    _checks.tolerance(name, "tolerance", tolerance, _checks.not_negative, "the largest force accepted")
    _checks.integer(name, "max_steps", max_steps, what="the number of steps")


def _step(name: str, step: Any, other: str = "") -> float:
    """Return the length of a step, or raise if it is not a positive constant."""
    return _checks.constant(name, "step", step, _checks.positive, f"the step is a positive number{other}")


def conjugate_gradients(problem: StaticProblem, s: PyTree, load: PyTree) -> PyTree:
    r"""Return $ds$ with $E''\,ds = \text{load}$ on the free coordinates, without a matrix; $E''$ is positive there."""
    free = problem.free(s, problem.force(s))
    eps = float(jnp.finfo(jnp.result_type(*(x.dtype for x in jax.tree.leaves(s)))).eps)

    # On one flat vector: JAX cannot transpose the solution if only some leaves of a load are differentiated.
    flat, tree = jax.flatten_util.ravel_pytree(only(free, load))

    def stiffness(x: Array) -> Array:
        ds = tree(x)
        held = jax.tree.map(lambda m, x: jnp.where(m, jnp.zeros_like(x), x), free, ds)
        pull = _tree.add(only(free, problem.stiffness(s, only(free, ds))), held)
        return _tree.flat(pull)

    def solve(stiffness: Any, load: Array) -> Array:
        ds, _ = jax.scipy.sparse.linalg.cg(stiffness, load, tol=eps**0.8)
        if not problem.throw:
            return ds
        left = _tree.norm(stiffness(ds) - load)
        ds = eqx.error_if(
            ds,
            ~(left <= eps**0.6 * _tree.norm(load)),
            "equilibrium: conjugate gradients did not find the linear response. The stiffness is singular, indefinite "
            "or very badly conditioned at the state of rest: it is not a proper minimum (a flat direction, a saddle), "
            "or the scales of the coordinates differ too much. Use solver=Newton(), give the flat direction some "
            "stiffness, or measure the coordinates in comparable units.",
        )
        return _tree.flat(symmetric(problem, s, tree(ds), "equilibrium"))

    return tree(jax.lax.custom_linear_solve(stiffness, flat, solve, symmetric=True))


class Relaxation(AbstractRelaxation):
    r"""Follow the force, all coordinates at once: $s \leftarrow {\rm clip}(s - \eta\, \partial E/\partial s)$.

    With `step="auto"` the length follows the curvature met on the way,

    $$\eta_k = \min\Bigl(\sqrt{\tfrac23 + \tfrac{\eta_{k-1}}{\eta_{k-2}}}\; \eta_{k-1},\;
    \frac{\eta_{k-1}}{\sqrt{[2 \eta_{k-1}^2 \ell_k^2 - 1]_+}}\Bigr), \quad
    \ell_k = \frac{\|\Delta \partial E/\partial s\|}{\|\Delta s\|},$$

    which converges on every convex energy. It needs no value of the energy, so rounding does not limit it near the
    minimum. The linear response is found by conjugate gradients, without a matrix.

    Args:
        step: length η in units of coordinate² over energy, or `"auto"`. A fixed one must be below 2 / (largest
            stiffness).
        tolerance: largest force accepted at rest, in units of energy over coordinate. By default 2e-12 in float64 and
            6e-6 in float32 (three quarters of the digits), times the larger of the force at the start and the elastic
            force, $E'' s$.
        max_steps: largest number of steps; `Backprop()` takes all of them.

    Raises:
        ArgumentError: if a number is out of range.

    Source: Y. Malitsky and K. Mishchenko, arXiv 2308.02261, algorithms 1 and 3, for the length.

    Example:
        ```python
        net = eg.nn.HopfieldNet([2, 4, 1], key=key)
        net.rest(jnp.ones((1, 2)), solver=eg.Relaxation(step=0.1))
        ```
    """

    step: Any = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(
        self, step: float | Literal["auto"] = "auto", *, tolerance: float | None = None, max_steps: int = 10_000
    ) -> None:
        check_limits("Relaxation", tolerance, max_steps)
        self.step = step if isinstance(step, str) and step == "auto" else _step("Relaxation", step, ' or "auto"')
        self.tolerance, self.max_steps = tolerance, max_steps

    def start(self, problem: StaticProblem, s: PyTree, force: PyTree) -> PyTree:
        if self.step != "auto":
            return None
        # A very small first move, to measure the curvature.
        size, far = _tree.norm(force), _tree.norm(s)
        pulled = _tree.scale(1 / jnp.where(size > 0, size, 1), force)
        stiffness = _tree.norm(jax.jvp(problem.force, (s,), (pulled,))[1])
        sound = (stiffness > 0) & jnp.isfinite(stiffness)
        bowl = 1 / jnp.where(sound, stiffness, 1)
        length = 1e-6 * jnp.where(far > 0, far / jnp.where(size > 0, size, 1), bowl)
        return s, force, length, jnp.full_like(length, jnp.inf)

    def move(self, problem: StaticProblem, s: PyTree, force: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        if self.step != "auto":
            return problem.clip(_tree.add(s, _tree.scale(self.step, force))), None
        last, last_force, length, growth = memory
        moved, turned = _tree.norm(_tree.subtract(s, last)), _tree.norm(_tree.subtract(force, last_force))
        still = moved == 0  # before the first move, or after one that rounding swallowed
        bend = length * turned / jnp.where(still, 1, moved)
        excess = jnp.where(bend**2 > 0.5, 2 * bend**2 - 1, 1)
        steady = jnp.minimum(jnp.sqrt(2 / 3 + growth), jnp.where(bend**2 > 0.5, 1 / jnp.sqrt(excess), jnp.inf))
        # The first move was a probe: take the length from its curvature, or a longer probe if there is none.
        probed = jnp.where(bend > 1e-6, 0.5**0.5 / jnp.maximum(bend, 1e-6), 1e6)
        factor = jnp.where(still, 1, jnp.where(jnp.isinf(growth), probed, steady))
        growth = jnp.where(still, growth, jnp.where(jnp.isinf(growth), 1 / 3, factor))
        length = length * factor
        memory = jax.lax.stop_gradient((s, force, length, growth))
        return problem.clip(_tree.add(s, _tree.scale(memory[2], force))), memory

    def respond(self, problem: StaticProblem, s: PyTree, load: PyTree) -> PyTree:
        return conjugate_gradients(problem, s, load)


class LayerwiseRelaxation(AbstractRelaxation):
    r"""Follow the force one leaf of the state after another, with the others held: for states made of layers.

    $$s_l \leftarrow {\rm clip}(s_l - \eta\, \partial E/\partial s_l), \quad l = 1, 2, \dots$$

    In a layered Hopfield net the energy of a leaf, with all others held, is $\tfrac12 |s_l|^2 - \langle b_l,
    s_l\rangle$. There the step 1 takes each leaf to its minimum, also in a box. This is block coordinate descent, which
    needs no step length and converges in a few sweeps.

    Args:
        step: length η in units of coordinate² over energy.
        tolerance: largest force accepted at rest (see `Relaxation`).
        max_steps: largest number of sweeps; `Backprop()` takes all of them.

    Raises:
        ArgumentError: if a number is out of range.

    Source: B. Scellier et al., arXiv 2402.11674, algorithm 1, for the exact block minimisation of layered networks.

    Example:
        ```python
        net = eg.nn.HopfieldNet([2, 4, 1], key=key)
        net.rest(jnp.ones((1, 2)), solver=eg.LayerwiseRelaxation())
        ```
    """

    step: float = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(self, step: float = 1.0, *, tolerance: float | None = None, max_steps: int = 1_000) -> None:
        check_limits("LayerwiseRelaxation", tolerance, max_steps)
        self.step = _step("LayerwiseRelaxation", step)
        self.tolerance, self.max_steps = tolerance, max_steps

    def start(self, problem: StaticProblem, s: PyTree, force: PyTree) -> PyTree:
        return None

    def move(self, problem: StaticProblem, s: PyTree, force: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        leaves, treedef = jax.tree.flatten(s)
        pulls = jax.tree.leaves(force)
        for i, leaf in enumerate(leaves):
            if i > 0:  # the force on the first leaf is given
                pulls = jax.tree.leaves(problem.force(jax.tree.unflatten(treedef, leaves)))
            leaves[i] = problem.clip(leaf + jnp.asarray(self.step, leaf.dtype) * pulls[i])
        return jax.tree.unflatten(treedef, leaves), memory

    def respond(self, problem: StaticProblem, s: PyTree, load: PyTree) -> PyTree:
        return conjugate_gradients(problem, s, load)
