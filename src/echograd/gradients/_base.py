"""The base classes of gradients: how a problem is run, and how the run is differentiated."""

import abc
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._internal import _tree
from .._internal._errors import ArgumentTypeError
from .._internal._reverse_rule import reverse_rule
from ..friction import Damped
from ..integrators import State, StepInputs
from ..nudge import AbstractNudge
from ..problem import Outcome, Problem
from ..problem._run import Course, free_run, marked_run, marks_of
from ..problem._soundness import finite
from ..systems import Dissipative
from ..two_point import TwoPointNewton
from ..two_point._newton import Convergence, find_path
from ..two_point._problem import Condition, Nodes, TwoPoint, outcome_of

_Gradient = TypeVar("_Gradient", bound=eqx.Module)


class AbstractGradient(eqx.Module):
    """Run the free problem, and define the derivative of the result.

    Example:
        ```python
        class Unrolled(eg.gradients.AbstractGradient):  # keeps no nodes and sums no cost
            def run(self, problem, z0):
                for k in range(problem.steps):
                    z0 = problem.step(jnp.int32(k), z0)
                return eg.problem.Outcome(None, z0, jnp.zeros(()))

            def run_two_point(self, problem, guess, newton):
                raise NotImplementedError

        sol = eg.solve(system, start, dt=0.1, steps=4, save=eg.FinalNode(), gradient=Unrolled())
        ```
    """

    def check(self, system: Any) -> None:
        """Raise if the gradient does not apply to the system."""
        if isinstance(system, Damped):
            raise ArgumentTypeError(
                f"{type(self).__name__}: a Damped system loses energy, so no machine runs back along its path. "
                "Software does: use Rewind(), which keeps the bits that friction destroys, or Backprop(). On the "
                "machine itself: MassDamped(system, rate) with Echo() if one rate damps all masses, Reciprocal() if "
                "the system is linear and reciprocal."
            )
        if isinstance(system, Dissipative):
            raise ArgumentTypeError(
                f"{type(self).__name__}: {type(system).__name__} is a Dissipative system, given by its forces. It has "
                "no energy and no action, so an echo of it has nothing to read. Use Reciprocal() if it is linear and "
                "reciprocal (diagnose measures that), MassDamped(system, rate) on a Hamiltonian if its damping is in "
                "proportion to its mass, or Backprop()."
            )

    @abc.abstractmethod
    def run(self, problem: Problem, z0: State) -> Outcome:
        """Return the outcome of the initial-value problem from `z0`, differentiable in `problem` and `z0`."""

    @abc.abstractmethod
    def run_two_point(self, problem: TwoPoint, guess: Nodes, newton: TwoPointNewton) -> tuple[Outcome, Convergence]:
        """Return the outcome of a two-point problem, differentiable in `problem`, and how it was found."""


class AbstractNudgedGradient(AbstractGradient):
    """A learning rule: the gradient of a free run is read off a nudged run.

    Example:
        ```python
        class Inverse(eg.gradients.AbstractNudgedGradient):  # nudges the inverse map
            nudge: eg.nudge.AbstractNudge

            def prepared(self, problem, z0):
                return z0

            def read_run(self, wanted, rest, course, bar):
                response = eg.gradients.nudged_run(wanted, rest, course, bar, self.nudge, "backward")
                return response.readings, (-response.state[1], response.state[0])

            def run_two_point(self, problem, guess, newton):
                raise NotImplementedError

        eqx.filter_grad(loss)(system, Inverse(eg.Infinitesimal()))
        ```
    """

    nudge: eqx.AbstractVar[AbstractNudge]

    def run(self, problem: Problem, z0: State) -> Outcome:
        return _run((guarded(problem), z0), self)

    @abc.abstractmethod
    def prepared(self, problem: Problem, z0: State) -> State:
        """Return the initial state, or raise at run time if the rule does not apply to the system."""

    @abc.abstractmethod
    def read_run(self, wanted: Problem, rest: Problem, course: Course, bar: Outcome) -> tuple[Problem, State]:
        """Return the cotangents of problem and initial state, from a nudged run of an initial-value problem.

        Args:
            wanted: the leaves of the problem that are differentiated.
            rest: its other leaves.
            course: states of the free run, the initial and the final one among them.
            bar: cotangents of the outcome, with `None` for zero.
        """


class AbstractPathGradient(AbstractNudgedGradient):
    """A learning rule that also nudges the paths of two-point problems."""

    def run_two_point(self, problem: TwoPoint, guess: Nodes, newton: TwoPointNewton) -> tuple[Outcome, Convergence]:
        arguments = guarded(problem.problem).given, problem.condition
        found, convergence = _path(arguments, _tree.fixed(problem), guess, self, newton)
        return outcome_of(problem, found), convergence

    @abc.abstractmethod
    def read_path(
        self, wanted: StepInputs, rest: StepInputs, problem: TwoPoint, found: Nodes, bars: Nodes, newton: TwoPointNewton
    ) -> tuple[StepInputs, Condition]:
        """Return the cotangents of the step inputs and the condition, from a nudged path of a two-point problem.

        Args:
            wanted: the leaves of the step inputs that are differentiated.
            rest: their other leaves.
            problem: the free problem.
            found: its path.
            bars: cotangents of the nodes.
            newton: how paths are found.
        """


def guarded(problem: Problem) -> Problem:
    """Return the problem; raise when it is differentiated by an array that its methods close over."""
    if not problem.closed_over:
        return problem
    h = _unless_differentiated((problem.given.h, problem.closed_over))
    return eqx.tree_at(lambda p: (p.given.h, p.closed_over), problem, (h, []))


@eqx.filter_custom_vjp
def _unless_differentiated(arguments: tuple[Array, list[Array]]) -> Array:
    return arguments[0]


@_unless_differentiated.def_fwd
def _refuse_closures(perturbed: PyTree, arguments: tuple[Array, list[Array]]) -> tuple[Array, None]:
    if any(perturbed[1]):
        shapes = ", ".join(str(x.aval.str_short()) for x, p in zip(arguments[1], perturbed[1], strict=True) if p)
        raise ArgumentTypeError(
            f"solve: a method of the system uses an array ({shapes}) that is being differentiated and is not a field "
            "of the system: the method closes over it, or finds it in a global name or an attribute. A nudged run "
            "reads derivatives by the fields only. Make the array a field of the system, or pass gradient=Backprop()."
        )
    return arguments[0], None


@_unless_differentiated.def_bwd
def _pass_on(residuals: None, bar: Array, perturbed: PyTree, arguments: tuple[Array, list[Array]]) -> Any:
    del residuals, perturbed
    return bar, [jnp.zeros_like(x) for x in arguments[1]]


def _run_free(arguments: tuple[Problem, State], rule: AbstractNudgedGradient) -> Outcome:
    del rule
    problem, z0 = arguments
    return finite(problem, free_run(problem, z0))


def _run_forward(arguments: tuple[Problem, State], rule: AbstractNudgedGradient) -> tuple[Outcome, Course]:
    problem, z0 = arguments
    marks = marks_of(problem.steps, problem.save.stride(problem.steps))
    outcome, course = marked_run(problem, rule.prepared(problem, z0) if problem.throw else z0, marks)
    return finite(problem, outcome), course


def _run_backward(course: Course, bar: Outcome, wanted: Any, rest: Any, rule: AbstractNudgedGradient) -> PyTree:
    return _read_run(rule, wanted[0], rest[0], course, bar)


@eqx.filter_jit
def _read_run(rule: AbstractNudgedGradient, *arguments: Any) -> tuple[Problem, State]:
    return rule.read_run(*arguments)


_run = reverse_rule(_run_free, _run_forward, _run_backward)


def _find(
    arguments: tuple[StepInputs, Condition], fixed: TwoPoint, guess: Nodes, rule: Any, newton: TwoPointNewton
) -> tuple[Nodes, Convergence]:
    del rule
    return find_path(_posed(fixed, arguments), newton, guess, jnp.zeros_like(guess), "free")


def _path_forward(*arguments: Any) -> tuple[tuple[Nodes, Convergence], Nodes]:
    found, convergence = _find(*arguments)
    return (found, convergence), found


def _path_backward(
    found: Nodes, bar: Any, wanted: Any, rest: Any, fixed: TwoPoint, guess: Nodes, rule: Any, newton: TwoPointNewton
) -> PyTree:
    del guess
    problem = _posed(fixed, eqx.combine(wanted, rest))
    return _read_path(rule, wanted[0], rest[0], problem, found, bar[0], newton)


def _posed(problem: TwoPoint, arguments: tuple[StepInputs, Condition]) -> TwoPoint:
    """Return the problem with these step inputs and this condition."""
    return eqx.tree_at(lambda p: (p.problem.given, p.condition), problem, arguments)


@eqx.filter_jit
def _read_path(rule: AbstractPathGradient, *arguments: Any) -> tuple[StepInputs, Condition]:
    return rule.read_path(*arguments)


_path = reverse_rule(_find, _path_forward, _path_backward)
