"""Parameters that move: they are coordinates, with momenta and a mass."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError
from ._base import Scalar
from ._parameter import as_parameter
from ._split import AbstractPart, Kinetic, SeparableHamiltonian, SplitHamiltonian, State, flow_and_read, parts_of


def _all_real(system: Any) -> list[Any]:
    """Return all real parameters of a system."""
    return [x for x in jax.tree.leaves(system) if _is_real(x)]


def _is_real(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


class MovingParameters(SplitHamiltonian):
    r"""A system whose parameters are coordinates with momenta $\pi$ and a mass.

    $$H(q, \theta, p, \pi) = H(q, p; \theta) + \frac{\pi^2}{2M}$$

    The state is the pair `(q, theta)` with momenta `(p, pi)`; both halves are PyTrees. The force on a
    parameter is $\dot\pi = -\partial H/\partial\theta$: while the system runs, its momentum accumulates what an echo
    would read. `solve` runs it with `SplitStep`, and a `SelfLearningMachine` learns with it.

    Args:
        system: a `SplitHamiltonian` or `SeparableHamiltonian`.
        mass: $M > 0$, one number; heavier parameters move less during a run.
        where: `system -> parameters`, a PyTree of the real arrays of the system that move; all of them by default. The
            others stay trainable parameters. `state` starts the moving ones from their values in `system`.

    Raises:
        ArgumentTypeError: for a system that is neither a `SplitHamiltonian` nor a `SeparableHamiltonian`.
        ArgumentError: if `where` returns no arrays, or complex ones.

    Source: V. Lopez-Pastor and F. Marquardt, PRX 13 (2023) 031020, section III.

    Example:
        ```python
        field = eg.systems.NonlinearSchroedinger(jnp.zeros(16))
        moving = eg.MovingParameters(field, mass=10.0, where=lambda field: field.potential)
        sol = eg.solve(moving, eg.InitialValue(*moving.state(*field.start())), dt=0.1, steps=50)
        potential = sol.q[1]
        ```
    """

    system: SplitHamiltonian | SeparableHamiltonian
    mass: Float[Array, ""]
    where: Callable[[Any], PyTree] = eqx.field(static=True)

    def __init__(self, system: Any, mass: Any, where: Callable[[Any], PyTree] = _all_real) -> None:
        mass = _checks.number("MovingParameters", "mass", mass, _checks.positive, "it must be positive and finite")
        _checks.function("MovingParameters", "where", where, "system -> parameters")
        self.system, self.mass, self.where = system, as_parameter(mass), where

    def __check_init__(self) -> None:
        parts = SplitHamiltonian, SeparableHamiltonian
        if not isinstance(self.system, parts):
            raise ArgumentTypeError(
                f"MovingParameters: {type(self.system).__name__} does not define the parts of its energy, so no "
                "integrator can step it and its parameters together. Derive it from SplitHamiltonian or "
                "SeparableHamiltonian."
            )
        moving = jax.tree.leaves(self.parameters())
        if not moving or not all(map(_is_real, moving)):
            raise ArgumentError(
                f"MovingParameters: `where` must return real arrays of the system, at least one; it returned {moving}. "
                "Write a complex parameter as two real ones."
            )

    def parameters(self) -> PyTree:
        """Return the values of the moving parameters in the system, from which they start."""
        leaves = jax.tree.leaves(self.system)
        places, treedef = self._places()
        return jax.tree.unflatten(treedef, [leaves[i] for i in places])

    def at(self, parameters: PyTree) -> Any:
        """Return the system with these values of the moving parameters."""
        leaves, treedef = jax.tree.flatten(self.system)
        parameters = _checks.numbers("MovingParameters", "parameters", parameters)
        expected, given = ([jnp.shape(x) for x in jax.tree.leaves(y)] for y in (self.parameters(), parameters))
        if expected != given:
            raise ArgumentError(
                f"MovingParameters: the arrays have shapes {given}, but the moving parameters have shapes {expected}. "
                "Pass arrays like those of parameters()."
            )
        for i, x in zip(self._places()[0], jax.tree.leaves(parameters), strict=True):
            leaves[i] = x
        return jax.tree.unflatten(treedef, leaves)

    def _places(self) -> tuple[list[int], Any]:
        """Return the indices of the leaves of the system that move, and their tree structure."""
        leaves, treedef = jax.tree.flatten(self.system)
        # A distinct object for every leaf, since two parameters may be the same array.
        marks = [jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves]
        try:
            chosen, structure = jax.tree.flatten(self.where(jax.tree.unflatten(treedef, marks)))
        except Exception as error:
            raise ArgumentError(f"MovingParameters: where(system) failed: {error}") from error
        places = [[i for i, mark in enumerate(marks) if mark is x] for x in chosen]
        if not all(places):
            raise ArgumentError(
                "MovingParameters: `where` must return arrays of the system as they are, such as "
                f"`lambda system: [system.mass, system.stiffness]`; it returned {chosen}."
            )
        return [i for (i,) in places], structure

    def state(self, q: PyTree, p: PyTree) -> State:
        """Return the state for `InitialValue`: that of the system, and the parameters at rest."""
        theta = self.parameters()
        q, p = _checks.pair("MovingParameters.state", "(q, p)", (q, p))
        return (q, theta), (p, _tree.zeros_like(theta))

    def parts(self, t: Scalar, u: Any) -> tuple[AbstractPart, ...]:
        def part(i: int) -> AbstractPart:
            return _Pushing(lambda theta: parts_of(self.at(theta), t, u)[i])

        n = len(parts_of(self.system, t, u))
        return (Kinetic(lambda p: 0.5 * _tree.dot(p[1], p[1]) / self.mass), *map(part, range(n)))

    def mirror(self, q: PyTree) -> PyTree:
        return self.system.mirror(q[0]), q[1]

    def mirror_input(self, u: Any) -> Any:
        return self.system.mirror_input(u)


class _Pushing(AbstractPart):
    """A part of a system that pushes its parameters. They are constant, and their momenta accumulate the readings."""

    make: Callable[[PyTree], AbstractPart]

    def __call__(self, q: PyTree, p: PyTree) -> Scalar:
        return self.make(q[1])(q[0], p[0])

    def flow(self, q: PyTree, p: PyTree, s: Scalar) -> State:
        (x, theta), (y, momentum) = q, p
        (x, y), push = flow_and_read(lambda theta: (self.make(theta), s), theta, (x, y))
        return (x, theta), (y, _tree.add(momentum, push))

    def action(self, q: PyTree, p: PyTree, s: Scalar) -> Scalar:
        (x, theta), (y, _) = q, p
        _, push = flow_and_read(lambda theta: (self.make(theta), s), theta, (x, y))
        return self.make(theta).action(x, y, s) - 0.5 * _tree.dot(theta, push)
