"""Measure what one gradient costs: passes, memory, time, and how they grow."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from .._internal._fit import exponent
from .._solve import Trajectory, solve
from ..boundary import AbstractBoundary, InitialValue
from ..friction import Damped
from ..gradients import AbstractGradient, Backprop
from ..gradients._time_reversal import limit_of_oddness, oddness
from ..integrators import AbstractIntegrator, StepInputs
from ..problem import FinalNode
from ..problem._run import MARKS
from ..systems import Dissipative, Lagrangian, legendre
from ._compare import flatten
from ._locality import Reach, measure_reach
from ._passes import Counted, Tally

Cost = Callable[[Any, PyTree, PyTree], Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled gradient."""

    compiled: Any
    arguments: tuple[Any, ...]

    def __call__(self) -> PyTree:
        return jax.block_until_ready(self.compiled(*self.arguments))

    @property
    def memory(self) -> int:
        """Working memory in bytes."""
        return int(self.compiled.compiled.memory_analysis().temp_size_in_bytes)

    def seconds(self, repeats: int) -> float:
        """Return the median time of a call."""
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            self()
            times.append(time.perf_counter() - start)
        return statistics.median(times)


@dataclasses.dataclass(frozen=True)
class Bench:
    """One system, and all that the rules of an audit share."""

    system: Any
    inputs: PyTree
    dt: Any
    steps: int
    t0: Any
    integrator: AbstractIntegrator
    cost: Cost
    guess: Any
    references: dict[int, tuple[AbstractBoundary, np.ndarray]] = dataclasses.field(default_factory=dict)
    reaches: dict[str, Reach] = dataclasses.field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(x.size for x in jax.tree.leaves(eqx.filter(self.system, eqx.is_inexact_array)))

    def program(
        self,
        boundary: AbstractBoundary,
        gradient: AbstractGradient,
        *,
        integrator: AbstractIntegrator | None = None,
        times: int = 1,
        of: Any = None,
        throw: bool = True,
    ) -> Program:
        """Compile the gradient over `times` as many steps, with respect to the leaves that `of` marks.

        Checks at run time change no number, but take long to compile: only the program that is judged has them.
        """
        inputs = jax.tree.map(lambda u: jnp.tile(u, (times,) + (1,) * (jnp.ndim(u) - 1)), self.inputs)
        # A guess of N nodes does not fit a longer path, which is compiled only for its memory.
        unfit = isinstance(boundary, InitialValue) or (times > 1 and isinstance(self.guess, Trajectory))
        options: dict[str, Any] = {} if unfit else {"guess": self.guess}
        wanted, rest = eqx.partition(self.system, eqx.is_inexact_array if of is None else of)

        def loss(wanted: Any, rest: Any, inputs: Any) -> Array:
            return solve(
                eqx.combine(wanted, rest),
                boundary,
                inputs,
                dt=self.dt,
                steps=times * self.steps,
                t0=self.t0,
                integrator=self.integrator if integrator is None else integrator,
                gradient=gradient,
                save=FinalNode(),
                cost=self.cost,
                throw=throw,
                **options,
            ).cost

        arguments = wanted, rest, inputs
        jitted: Any = eqx.filter_jit(eqx.filter_grad(loss))
        return Program(jitted.lower(*arguments).compile(), arguments)

    def reference(self, boundary: AbstractBoundary) -> np.ndarray:
        """Return the gradient by backpropagation under this boundary condition, computed once."""
        if id(boundary) not in self.references:
            self.references[id(boundary)] = boundary, flatten(self.program(boundary, Backprop(), throw=False)())
        return self.references[id(boundary)][1]

    def passes(self, boundary: AbstractBoundary, gradient: AbstractGradient, times: int = 1, of: Any = None) -> float:
        """Return the number of steps taken for a gradient, divided by the number of steps of the trajectory."""
        tally = Tally()
        counted = Counted(self.integrator, tally)
        self.program(boundary, gradient, integrator=counted, times=times, of=of, throw=False)()
        jax.effects_barrier()
        return tally.count / (times * self.steps)

    def growth(self, boundary: AbstractBoundary, gradient: AbstractGradient, passes: float) -> dict[str, Any]:
        """Measure the fields of `AuditRow` that tell how passes and memory grow, given the passes for N steps."""
        # Memory is measured from the length at which an echo keeps all its marks.
        times = math.ceil(MARKS / self.steps)
        memory = [self.program(boundary, gradient, times=n).memory for n in (times, 2 * times)]
        return {
            "passes_by_steps": exponent((1, 2), (passes, self.passes(boundary, gradient, times=2))),
            "passes_by_parameters": self.passes_by_parameters(boundary, gradient, passes),
            "memory_by_steps": exponent((1, 2), memory),
        }

    def passes_by_parameters(
        self, boundary: AbstractBoundary, gradient: AbstractGradient, passes: float
    ) -> float | None:
        """Return the passes for one more parameter, from all parameters and those of the smallest array."""
        leaves, treedef = jax.tree.flatten(self.system)
        sizes = {i: x.size for i, x in enumerate(leaves) if eqx.is_inexact_array(x)}
        one = min(sizes, key=lambda i: sizes[i])
        others = self.parameters - sizes[one]
        if not others:
            return None
        of = jax.tree.unflatten(treedef, [i == one for i in range(len(leaves))])
        return float(f"{(passes - self.passes(boundary, gradient, of=of)) / others:.2g}")

    def coordinates(self, boundary: AbstractBoundary) -> PyTree:
        """Return coordinates of the structure that a path has under this condition."""
        like = boundary.structure()
        if like is not None:
            return like
        if isinstance(self.guess, Trajectory):
            return jax.tree.map(lambda x: x[0], self.guess.q)
        return jax.tree.map(jnp.asarray, self.guess[0])

    def reversible(self, boundary: AbstractBoundary) -> bool:
        """Return whether an echo of the machine would retrace its path, by the probes that `Echo` makes."""
        if isinstance(self.system, Dissipative | Damped):
            return False
        system = legendre(self.system) if isinstance(self.system, Lagrangian) else self.system
        q = self.coordinates(boundary)
        h, t0 = (jnp.asarray(x, jax.tree.leaves(q)[0].dtype) for x in (self.dt, self.t0))
        given = StepInputs(system, self.inputs, h, t0)
        z0 = q, _tree.zeros_like(q)
        return bool(oddness(given, self.steps, z0) <= limit_of_oddness(z0))

    def reach(self, boundary: AbstractBoundary) -> Reach:
        """Return the reach of the readings, measured once for every structure of the coordinates."""
        like = self.coordinates(boundary)
        if isinstance(self.system, Damped) and not jax.tree.leaves(
            eqx.filter(self.system.system, eqx.is_inexact_array)
        ):
            return Reach(0, _tree.flat(like).size, "")  # the parameters are those of the friction, which nothing reads
        shapes = str(jax.tree.map(jnp.shape, like))
        if shapes not in self.reaches:
            self.reaches[shapes] = measure_reach(
                self.system.mechanical if isinstance(self.system, Damped) else self.system, self.inputs, self.t0, like
            )
        return self.reaches[shapes]
