"""Memory and time of gradients."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from echograd import (
    ArgumentError,
    ArgumentTypeError,
    Backprop,
    Echo,
    FinalNode,
    InitialValue,
    SeparableHamiltonian,
    solve,
)
from echograd._internal import _checks, _tree
from echograd.gradients import AbstractGradient
from echograd.plot import CostRow

from ._measure import Subject, undamped

GRADIENTS: dict[str, AbstractGradient] = {"echo": Echo(), "backprop": Backprop()}

# Time limit for the repeats of one gradient.
_SECONDS = 1.5


def measure(
    loss_of: Callable[[int], Callable[[Any, AbstractGradient], Float[Array, ""]]],
    params: Any,
    steps: Sequence[int],
    gradients: Mapping[str, AbstractGradient] | None = None,
    repeats: int = 15,
) -> list[CostRow]:
    """Measure memory and time of gradients of a loss at several numbers of steps.

    Memory is what the compiled program allocates besides its arguments and results. Time is the median over the
    repeats; the gradients take turns. Slow gradients have fewer repeats, but at least 3.

    Args:
        loss_of: function `(steps) -> loss`, where `loss` is a function `(params, gradient) -> scalar`.
        params: PyTree whose floating-point arrays are differentiated.
        steps: numbers of steps.
        gradients: gradient objects by name; echo and backprop by default.
        repeats: largest number of timed repeats.

    Returns:
        One row for every number of steps and gradient: memory in bytes, time in seconds.

    Raises:
        ArgumentTypeError: `loss_of` or its result is not a function, or `steps` is not a sequence.
        ArgumentError: `steps` or `gradients` is empty, or a number is not an integer of at least 1.

    Example:
        ```python
        def loss_of(steps):
            def loss(system, gradient):
                sol = eg.solve(system, start, dt=0.05, steps=steps, gradient=gradient, save=eg.FinalNode())
                return jnp.sum(sol.q**2)

            return loss

        measure(loss_of, system, (1000, 4000))
        ```
    """
    _checks.function("measure", "loss_of", loss_of, "(steps) -> loss")
    if isinstance(steps, str) or not isinstance(steps, Sequence):
        raise ArgumentTypeError(
            f"measure: steps={_checks.shown(steps)} is not a sequence of numbers of steps, such as (1000, 4000)."
        )
    for name, count in (*(("steps", n) for n in steps), ("repeats", repeats)):
        _checks.integer("measure", name, count)
    if gradients is not None and not (isinstance(gradients, Mapping) and gradients):
        raise ArgumentError(f"measure: gradients={_checks.shown(gradients)} is not a mapping from names to gradients.")
    if not steps:
        raise ArgumentError("measure: steps is empty, so there is nothing to measure. Pass (1000, 4000), for example.")
    gradients = GRADIENTS if gradients is None else gradients
    gradient_of: Any = eqx.filter_jit(lambda loss, gradient, params: eqx.filter_grad(loss)(params, gradient))
    rows = []
    for n in steps:
        compiled, loss = {}, loss_of(n)
        if not callable(loss):
            raise ArgumentTypeError(
                f"measure: loss_of({n}) returned {_checks.shown(loss)}; it must return a function (params, gradient) "
                "-> loss."
            )
        for name, gradient in gradients.items():
            compiled[name] = gradient_of.lower(loss, gradient, params).compile()
        times: dict[str, list[float]] = {name: [] for name in compiled}
        begun = time.perf_counter()
        for i in range(repeats + 1):
            for name, program in compiled.items():
                start = time.perf_counter()
                jax.block_until_ready(program(loss, gradients[name], params))
                # The first call is not timed.
                if i:
                    times[name].append(time.perf_counter() - start)
            if i >= 3 and time.perf_counter() - begun > _SECONDS * len(compiled):
                break
        for name, program in compiled.items():
            size = program.compiled.memory_analysis().temp_size_in_bytes
            rows.append(CostRow(gradient=name, steps=n, bytes=size, seconds=statistics.median(times[name])))
    return rows


def model_costs(subject: Subject, steps: Sequence[int]) -> list[CostRow]:
    """Measure gradients of the training loss with respect to all parameters of the model."""
    subjects = {n: subject.stretched(n) for n in steps}

    def loss_of(n: int) -> Any:
        # A bound method of a module: the cases are arguments of the program, so the compiler cannot fold them.
        return subjects[n].loss

    return measure(loss_of, subject.model, steps, subject.gradients)


class _Steady(SeparableHamiltonian):
    """Oscillators with a constant drive."""

    system: SeparableHamiltonian
    drive: Float[Array, "channels units"]

    def kinetic(self, t: Any, p: Any) -> Float[Array, ""]:
        return self.system.kinetic(t, p)

    def potential(self, t: Any, q: Any, u: Any) -> Float[Array, ""]:
        return self.system.potential(t, q, self.drive)


def oscillator_costs(subject: Subject, steps: Sequence[int]) -> list[CostRow]:
    """Measure gradients of the mean squared position of the oscillators of one block, without inputs."""
    unit = subject.model.blocks[0].unit
    system = _Steady(undamped(subject.model), jnp.zeros(unit.read_in.shape[:2], unit.read_in.dtype))
    q = _tree.spread(system.drive)

    def loss_of(n: int) -> Any:
        def loss(system: _Steady, gradient: AbstractGradient) -> Float[Array, ""]:
            start = InitialValue(q, jnp.zeros_like(q))
            sol = solve(
                system,
                start,
                dt=1.0,
                steps=n,
                gradient=gradient,
                save=FinalNode(),
                cost=lambda t, q, p: jnp.sum(q**2) / n,
            )
            return sol.cost

        return loss

    return measure(loss_of, system, steps)
