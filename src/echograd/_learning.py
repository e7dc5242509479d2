"""Hamiltonian echo backpropagation: a machine that learns by its own motion."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._internal import _checks, _tree
from ._internal._errors import ArgumentTypeError, refuse_if
from ._solve import solve
from .boundary import InitialValue
from .gradients import Echo
from .gradients._retrace import tolerance_for
from .integrators import AbstractIntegrator, State
from .integrators._base import time_reversed
from .problem import FinalNode
from .systems import Hamiltonian


class Lesson(eqx.Module):
    """The result of one example.

    Attributes:
        field: the learning field afterwards, coordinates and momenta.
        cost: the cost of the output, from the first forward run.
        retrace: the distance between the final evaluation field and the input, relative to the input. It should be of
            the order of the kick; if it is larger, the machine did not run back along its own path.
    """

    field: State
    cost: Float[Array, ""]
    retrace: Float[Array, ""]


class SelfLearningMachine(eqx.Module):
    r"""A Hamiltonian machine that learns with its own dynamics (Hamiltonian echo backpropagation, HEB).

    Its state has two halves. The *evaluation field* $\Psi$ is set to the input and carries the output. The *learning
    field* $\Theta$ has coordinates $\theta$, which are learned, and momenta $\pi$, which carry the gradient. One
    example has four steps:

    1. *forward*: the machine runs for a time T;
    2. *kick*: the cost acts on the output, $p \to p - \eta\,\partial C/\partial q$ and $q \to q + \eta\,\partial
       C/\partial p$, that is $\psi \to \psi - i\eta\,\partial C/\partial\psi^*$;
    3. *echo*: the state is time-reversed, the machine runs for a time T again, and is time-reversed. Now
       $\delta\pi = -\eta\,\partial C/\partial\theta$ and $\delta\theta = \eta\,\partial C/\partial\pi$;
    4. *decay*: friction turns the momentum into a displacement, $\theta \to \theta + (1 - e^{-\Gamma})\,\pi/m$ and
       $\pi \to e^{-\Gamma} \pi$.

    So $\theta$ moves by $-(\eta/m)\,\partial C/\partial\theta$: gradient descent. The only gradient that is computed
    outside the machine is that of the cost at the output.

    The *simple* form, these four steps alone, has a systematic error: $\theta$ also moves by
    $\eta\,\partial C/\partial\pi$. The error grows with the decay mass, and with a lighter learning field. The
    *averaged* form echoes twice, with $\eta$ and $-\eta$, which cancels the error. In the paper the field decays after
    each echo, with $m$ and $-m$, so the second gradient is taken one step later. Here the momentum is flipped before
    and after the second echo, which is the same to first order and needs no negative mass: both gradients are taken at
    the same $\theta$ and add up in $\pi$ to twice the step. (`examples/heb_xor.py` measures all three.)

    Args:
        system: an autonomous, time-reversible Hamiltonian whose coordinates (and momenta) are a pair
            `(evaluation, learning)` of PyTrees. In a `MovingParameters` the parameters learn; in a `KerrLattice` the
            last sites learn (the pair is flattened to its sites, evaluation first).
        cost: `(q, p, target) -> scalar`, the cost of the output, from coordinates and momenta of the evaluation field.
        dt: step length.
        steps: number of steps; a run takes the time T = steps × dt.
        eta: strength of the kick $\eta$, in units of action over cost. The error of the gradient is $O(\eta^2)$ plus
            rounding over $\eta$: use about 1e-3 in float32, and down to 1e-6 in float64.
        mass: $m$, the mass during the decay. The learning rate is $\eta/m$, or $2\eta/m$ in the averaged form: for a
            rate r pass `mass=2 * eta / r`.
        friction: $\Gamma$; the decay multiplies the momentum by $e^{-\Gamma}$.
        averaged: whether to learn in the averaged form.
        integrator: a self-adjoint scheme; by default the one that `solve` uses for the system.

    Raises:
        ArgumentTypeError: if the system is not a Hamiltonian, or another argument has the wrong type.
        ArgumentError: if a number is out of range, the cost does not return one real number, or a learning field does
            not fit the machine.
        RuntimeError: at run time, if a traced number is out of range, or the cost or its slope is not finite; from
            `gradient`, if the machine does not run back along its path (`learn` reports that as `retrace`).

    Source: V. Lopez-Pastor and F. Marquardt, PRX 13 (2023) 031020 (arXiv 2103.04992).

    Example:
        ```python
        class Chain(eg.SeparableHamiltonian):
            stiffness: Array

            def kinetic(self, t, p):
                return 0.5 * jnp.sum(p**2)

            def potential(self, t, q, u):
                return 0.5 * jnp.sum(self.stiffness * jnp.diff(q) ** 2)

        moving = eg.MovingParameters(Chain(jnp.ones(3)), mass=1e4)
        machine = eg.SelfLearningMachine(moving, lambda q, p, target: (q[-1] - target) ** 2, dt=0.1, steps=40)
        field = machine.rest(moving.parameters())
        for _ in range(100):
            lesson = machine.learn(field, (jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.zeros(4)), 0.5)
            field = lesson.field
        ```

        A lattice of waves with six sites. The first two are set to the input, the others learn:
        ```python
        ring = jnp.roll(jnp.eye(6), 1, 0)
        lattice = eg.systems.KerrLattice(ring + ring.T, kerr=-1.0)
        machine = eg.SelfLearningMachine(
            lattice, lambda q, p, target: jnp.abs(eg.wave(q, p)[1] - target) ** 2, dt=0.05, steps=100, mass=1e-2
        )
        field = eg.canonical(jnp.full(4, 0.5))  # real amplitudes are at rest
        lesson = machine.learn(field, eg.canonical(jnp.array([1.0, 0.0])), 0.3)
        ```
    """

    system: Hamiltonian
    cost: Callable[[PyTree, PyTree, Any], Float[Array, ""]]
    dt: float | Float[Array, ""]
    steps: int = eqx.field(static=True)
    eta: float | Float[Array, ""]
    mass: float | Float[Array, ""]
    friction: float | Float[Array, ""]
    averaged: bool = eqx.field(static=True)
    integrator: AbstractIntegrator | None = eqx.field(static=True)

    def __init__(
        self,
        system: Hamiltonian,
        cost: Callable[[PyTree, PyTree, Any], Float[Array, ""]],
        *,
        dt: Any,
        steps: int,
        eta: Any = 1e-4,
        mass: Any = 1e-3,
        friction: Any = 100.0,
        averaged: bool = True,
        integrator: AbstractIntegrator | None = None,
    ) -> None:
        owner = "SelfLearningMachine"
        self.system, self.cost = system, _checks.function(owner, "cost", cost, "(q, p, target) -> scalar")
        self.dt = _checks.number(owner, "dt", dt, _checks.positive, "a step length is positive")
        self.steps = _checks.integer(owner, "steps", steps, what="the number of steps")
        self.eta = _number("eta", eta, lambda x: (x != 0) & (abs(x) < math.inf), "finite and not zero")
        self.mass = _number("mass", mass, lambda x: (x != 0) & (abs(x) < math.inf), "finite and not zero")
        self.friction = _number("friction", friction, lambda x: x > 0, "positive")
        self.averaged = _checks.flag(owner, "averaged", averaged)
        if integrator is not None:
            _checks.instance(owner, "integrator", integrator, AbstractIntegrator, "an integrator. Pass Leapfrog()")
        self.integrator = integrator

    def __check_init__(self) -> None:
        if not isinstance(self.system, Hamiltonian):
            raise ArgumentTypeError(
                f"SelfLearningMachine: system={self.system!r} is not a Hamiltonian whose state is a pair (evaluation, "
                "learning). To let the parameters of a system learn, wrap it: MovingParameters(system, mass)."
            )

    def rest(self, theta: PyTree) -> State:
        """Return a learning field at rest at these coordinates (of real waves, `canonical` does the same)."""
        theta = _checks.state("SelfLearningMachine", "theta", theta)
        return theta, _tree.zeros_like(theta)

    @eqx.filter_jit
    def run(self, field: State, evaluation: State) -> tuple[State, State]:
        """Run the machine for a time T, without learning; return the final learning field and evaluation field."""
        (q, p), (theta, pi) = _checked_pair("evaluation field", evaluation), _checked_pair("learning field", field)
        start = InitialValue((q, theta), (p, pi))
        sol = solve(self.system, start, dt=self.dt, steps=self.steps, integrator=self.integrator, save=FinalNode())
        (q, theta), (p, pi) = sol.q, sol.p
        return (theta, pi), (q, p)

    @eqx.filter_jit
    def echo(self, field: State, evaluation: State, target: Any, eta: Any = None) -> Lesson:
        """Run forward, kick and run back: steps 1 to 3. The returned field has not decayed yet."""
        eta = self.eta if eta is None else eta
        output_field, (q, p) = self.run(field, evaluation)
        cost, (dq, dp) = self._priced(q, p, target)
        kicked = _tree.add(q, _tree.scale(eta, dp)), _tree.subtract(p, _tree.scale(eta, dq))
        back = self.run(*self._reversed(output_field, kicked))
        after, ended = self._reversed(*back)
        size = jnp.maximum(*map(_tree.max_abs, evaluation))
        retrace = jnp.maximum(*map(_tree.max_abs, _tree.subtract(ended, evaluation)))
        return Lesson(after, cost, retrace / jnp.where(size > 0, size, 1))

    def decay(self, field: State, mass: Any = None) -> State:
        """Turn the momentum of the learning field into a displacement: step 4."""
        mass = self.mass if mass is None else mass
        (theta, pi), kept = _checked_pair("learning field", field), jnp.exp(-jnp.asarray(self.friction))
        return _tree.add(theta, _tree.scale((1 - kept) / mass, pi)), _tree.scale(kept, pi)

    @eqx.filter_jit
    def learn(self, field: State, evaluation: State, target: Any) -> Lesson:
        """Learn from one example: steps 1 to 4, in the averaged form with two echoes.

        Args:
            field: the learning field, from `rest` or an earlier lesson.
            evaluation: the input, coordinates and momenta of the evaluation field.
            target: passed to the cost.

        Returns:
            `Lesson(field, cost, retrace)`.
        """
        lesson = self.echo(field, evaluation, target, self.eta)
        after = lesson.field
        if self.averaged:
            after = _flipped(self.echo(_flipped(after), evaluation, target, -self.eta).field)
        return Lesson(self.decay(after), lesson.cost, lesson.retrace)

    @eqx.filter_jit
    def gradient(self, field: State, evaluation: State, target: Any) -> PyTree:
        r"""Measure $\partial C/\partial\theta$ from the displacement by echoes: $-(m/\eta)\,\delta\theta$.

        The averaged form takes the mean of two displacements from the same field, with $(\eta, m)$ and $(-\eta, -m)$.
        Its error is $O(m \eta) + O(\eta^2)$. The error of the simple form is $m\,\partial C/\partial\pi + O(\eta)$.
        """
        dtype = jnp.result_type(*jax.tree.leaves(field[0]))
        signs = jnp.asarray([1, -1] if self.averaged else [1], dtype)
        # One more echo without a kick, which must return to the start.
        lessons = jax.vmap(lambda s: self.echo(field, evaluation, target, s * self.eta))(jnp.append(signs, 0))
        tolerance = tolerance_for(Echo(), evaluation)
        after = refuse_if(
            jax.tree.map(lambda x: x[:-1], lessons.field),
            ~(lessons.retrace[-1] <= tolerance),
            "SelfLearningMachine: the machine does not run back along its path, so its displacement is not a gradient. "
            f"An echo without a kick misses the start by {{}} of the input, more than {tolerance:g}. Likely causes: "
            "(a) the energy is not even in the momentum: remove the odd part, or give the system the `mirror` under "
            "which it is even; (b) the energy depends on time, but not symmetrically about half the run; (c) the "
            "motion is chaotic over this time, or dt is too long: use float64, or fewer or shorter steps.",
            lessons.retrace[-1],
        )
        moved = jax.vmap(lambda x, s: _tree.subtract(self.decay(x, s * self.mass)[0], field[0]))(after, signs)
        displacement = jax.tree.map(lambda x: jnp.mean(x, 0), moved)
        rate = (1 - jnp.exp(-jnp.asarray(self.friction))) * self.eta / self.mass
        return _tree.scale(-1 / rate, displacement)

    def _priced(self, q: PyTree, p: PyTree, target: Any) -> tuple[Float[Array, ""], State]:
        """Return the cost of an output and its slopes, which give the kick."""
        _checks.scalar("SelfLearningMachine", "cost(q, p, target)", self.cost, q, p, target)
        found = jax.value_and_grad(self.cost, (0, 1))(q, p, target)
        return eqx.error_if(
            found,
            ~_tree.all_finite(found),
            "SelfLearningMachine: the cost of the output or its slope is not finite, so the output cannot be kicked. "
            "The target may hold a NaN or an infinity, or the cost has no slope there (a square root of zero). Leave "
            "the example out, or change the cost. The learning field is unchanged.",
        )

    def _reversed(self, field: State, evaluation: State) -> tuple[State, State]:
        (theta, pi), (q, p) = field, evaluation
        (q, theta), (p, pi) = time_reversed(self.system, ((q, theta), (p, pi)))
        return (theta, pi), (q, p)


def _flipped(field: State) -> State:
    return field[0], _tree.negate(field[1])


def _number(name: str, x: Any, sound: Callable[[Any], Any], what: str) -> Any:
    """Return a number of the machine, or raise; for a traced number, at run time."""
    why = f"it must be {what}: a step is gradient * eta / mass * (1 - e**-friction)"
    return _checks.number("SelfLearningMachine", name, x, sound, why, at_run_time=True)


def _checked_pair(name: str, x: Any) -> State:
    """Return a field, or raise."""
    return _checks.pair("SelfLearningMachine", f"the {name}", x)
