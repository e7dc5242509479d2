"""A simulated machine: a system, an integrator and imperfections."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError
from ..gradients._time_reversal import surely_even
from ..integrators import AbstractIntegrator, Leapfrog, State, StepInputs
from ..integrators._base import Direction, time_reversed
from ..problem._posing import default_integrator
from ..systems import AbstractSystem
from ._imperfections import AbstractImperfection, RunId, straight_through
from ._machine import AbstractMachine, Kicks, Order, Record, Sample, backwards, mirrored, mirrored_reading, sizes_of


class Simulated(AbstractMachine):
    r"""A simulated machine: a system run by an integrator, with imperfections.

    Without imperfections it equals the owner's model, and `run` gives the gradients of
    `solve(..., gradient=Echo(nudge))`. Readings are derivatives with respect to the *actual* parameters, not the
    commanded ones, as a sensor at an element would measure them.

    Args:
        imperfections: a sequence of imperfections, applied in this order.
        plant: `model -> system`, the actual machine when it is set to a model; by default the model itself. The chain
            rule turns readings of the plant's parameters into those of the model's. A plant may have elements that the
            model does not have, and may be an `equinox.Module` with arrays of its own.
        integrator: a self-adjoint scheme; by default the one that `solve` uses for the system.

    Raises:
        ArgumentTypeError: if an argument has the wrong type.
        ArgumentError: for `Leapfrog(exact=True)`, which needs states on a grid.

    Example:
        ```python
        key = jax.random.key(0)
        machine = eg.device.Simulated([eg.device.Mismatch(0.1, key), eg.device.Friction(1e-3)])
        sol = eg.device.run(machine, system, eg.InitialValue(q, p), dt=0.1, steps=20, nudge=eg.Symmetric(0.1))
        ```
    """

    imperfections: tuple[AbstractImperfection, ...]
    plant: Callable[[Any], Any] | None
    integrator: AbstractIntegrator | None = eqx.field(static=True)

    def __init__(
        self,
        imperfections: Sequence[AbstractImperfection] = (),
        *,
        plant: Callable[[Any], Any] | None = None,
        integrator: AbstractIntegrator | None = None,
    ) -> None:
        if isinstance(imperfections, AbstractImperfection):
            imperfections = (imperfections,)
        _checks.instance("Simulated", "imperfections", imperfections, (tuple, list), "a sequence of imperfections")
        if plant is not None:
            _checks.function("Simulated", "plant", plant, "model -> system")
        if integrator is not None:
            _checks.instance(
                "Simulated", "integrator", integrator, AbstractIntegrator, "an integrator; pass Leapfrog()"
            )
        self.imperfections, self.plant, self.integrator = tuple(imperfections), plant, integrator

    def __check_init__(self) -> None:
        for x in self.imperfections:
            if not isinstance(x, AbstractImperfection):
                raise ArgumentTypeError(
                    f"Simulated: {x!r} is not an imperfection. Pass a sequence of imperfections, such as "
                    "[Friction(1e-3)]."
                )
        if isinstance(self.integrator, Leapfrog) and self.integrator.exact:
            raise ArgumentError(
                "Simulated: Leapfrog(exact=True) computes in fixed point, and kicks, friction and noise of a machine "
                "are not on its grid. Use Leapfrog()."
            )

    def realised(self, model: Any, run_id: RunId) -> Any:
        """Return the actual system of one run when the machine is set to a model.

        Its derivative with respect to the model is that of the plant, as if imperfections were constants added to the
        parameters.
        """
        system = model if self.plant is None else self.plant(model)
        _checks.instance("Simulated", "what plant(model) returns", system, AbstractSystem, "a system")
        meant, static = eqx.partition(system, eqx.is_inexact_array)
        real = meant
        for imperfection in self.imperfections:
            real = imperfection.realised(real, run_id)
        return eqx.combine(jax.tree.map(straight_through, real, meant), static)

    @property
    def reads_in_forward_time(self) -> bool:
        return True

    def run(self, order: Order) -> Record:
        kicks = None if order.kicks is None else Kicks(None, order.kicks)
        found, nodes = self._run(eqx.tree_at(lambda o: o.kicks, order, kicks, is_leaf=lambda x: x is None), 1)
        return Record(nodes, found.parameters, found.inputs)

    def sampled(self, order: Order, stride: int | None) -> Sample:
        found, nodes = self._run(order, stride, keep=not order.echo)
        return eqx.tree_at(lambda x: x.kept, found, nodes, is_leaf=lambda x: x is None)

    def _run(self, order: Order, stride: int | None, *, keep: bool = True) -> tuple[Sample, Any]:
        """Carry out an order with `Kicks`; return the readings, and every `stride`-th node if `keep`."""
        run_id = RunId(order.experiment, order.run)
        system, pull = eqx.filter_vjp(lambda model: self.realised(model, run_id), order.model)
        integrator = default_integrator(system) if self.integrator is None else self.integrator
        integrator.check(system)
        # Integrators mirror the inputs of an echo themselves, and index its steps as in the forward run.
        inputs = mirrored(system, order.inputs) if order.echo else order.inputs
        is_read: Any = eqx.is_inexact_array if order.echo else False
        given = StepInputs(system, inputs, order.dt, order.t0)
        wanted, rest = eqx.partition(given, StepInputs(is_read, is_read, False, False))  # pyright: ignore[reportArgumentType]
        even = surely_even(given, order.start)
        steps = _Steps(self.imperfections, integrator, order, run_id, wanted, rest, even)
        (last, total, sizes), nodes, inputs_read = steps.walk(stride, keep)
        if not order.echo:
            return Sample(None, last, sizes), nodes
        return Sample(None, last, sizes, pull(total.system)[0], mirrored_reading(system, inputs, inputs_read)), nodes


class _Steps(eqx.Module):
    """The steps of one run. `even`: whether the energy surely has all slopes even in the momentum.

    The carry of a step is the state, the sum of the readings, and the largest numbers that were read.
    """

    imperfections: tuple[AbstractImperfection, ...]
    integrator: AbstractIntegrator
    order: Order
    run_id: RunId
    wanted: StepInputs
    rest: StepInputs
    even: bool

    def see(self, k: Int[Array, ""], z: State) -> State:
        """Return the state as the sensors read it at the `k`-th node of the run."""
        for imperfection in self.imperfections:
            z = imperfection.seen(z, k, self.run_id)
        return z

    def move(self, carry: Any, k: Int[Array, ""]) -> tuple[Any, PyTree]:
        """Take the `k`-th step of the run, and read it through the sensors."""
        (z, total, sizes), echo = carry, self.order.echo
        direction: Direction = "echo" if echo else "forward"
        seen, index = self.see(k, z), self.order.steps - 1 - k if echo else k
        asked = self.wanted.at(index), self.rest.at(index), index
        after, reading = self.integrator.read(*asked, z, direction)
        if echo and not self.even:
            # Read in forward time: the mirror may exchange parameters, and changes the sign of odd slopes.
            system = eqx.combine(self.wanted, self.rest).system
            _, reading = self.integrator.read(*asked, time_reversed(system, seen), "backward")
        elif echo and seen is not z:
            _, reading = self.integrator.read(*asked, seen, direction)
        for imperfection in self.imperfections:
            after = imperfection.moved(after, self.order.dt, k, self.run_id)
        sizes = jnp.maximum(sizes, sizes_of(jax.lax.stop_gradient(seen)))
        return (after, _tree.add(total, reading.without_inputs()), sizes), reading.u

    def moves(self, carry: Any, first: Any, steps: int) -> tuple[Any, PyTree]:
        """Take several steps."""
        move = lambda carry, k: self.move(carry, k)  # noqa: E731 (a bound method of a module with tracers has no hash)
        return jax.lax.scan(move, carry, first + jnp.arange(steps, dtype=jnp.int32))

    def begin(self) -> tuple[Any, Kicks | None]:
        """Return the carry at the first node, and the kicks of the later ones, as the machine has them."""
        z, kicks = self.order.start, self.order.kicks
        total = _tree.zeros_like(self.wanted.without_inputs())
        sizes = jnp.zeros_like(sizes_of(z))
        if kicks is not None:
            z = time_reversed(eqx.combine(self.wanted, self.rest).system, z)
            for imperfection in self.imperfections:
                z = imperfection.reversed(z, self.run_id)
                kick = lambda x, i=imperfection: i.kicked(x, self.run_id)  # noqa: E731
                kicks = jax.tree.map(kick, kicks, is_leaf=lambda x: isinstance(x, tuple))
            z = z if kicks.first is None else _tree.add(z, kicks.first)
        return (z, total, sizes), kicks

    def walk(self, stride: int | None, keep: bool) -> tuple[Any, Any, PyTree]:
        """Return the last carry, every `stride`-th node if `keep`, and the readings of inputs in forward order.

        An echo passes first the steps that are left over behind the last kept node of the forward run.
        """
        n = self.order.steps
        blocks, start = (0, 0) if stride is None else (n // stride, n % stride if self.order.echo else 0)
        carry, kicks = self.begin()
        kept = None if kicks is None else kicks.kept
        nodes, du = None, []  # readings of inputs, one array per scan

        def visit(carry: Any, k: Int[Array, ""], kick: State | None) -> tuple[Any, State | None]:
            """Kick a node, and read it."""
            z, *others = carry
            z = z if kick is None else _tree.add(z, kick)
            return (z, *others), self.see(k, z) if keep else None

        def block(carry: Any, row: tuple[Int[Array, ""], State | None]) -> tuple[Any, Any]:
            k, kick = row
            carry, seen = visit(carry, k, kick)
            carry, read = self.moves(carry, k, stride or 0)
            return carry, (seen, read)

        def left_over(carry: Any, first: int, steps: int) -> Any:
            if steps:
                carry, read = self.moves(carry, jnp.asarray(first, jnp.int32), steps)
                du.append(read)
            return carry

        carry = left_over(carry, 0, start)
        done = start + blocks * (stride or 0)
        if stride is not None:
            rows = start + stride * jnp.arange(blocks, dtype=jnp.int32), jax.tree.map(lambda x: x[:-1], kept)
            carry, (nodes, read) = jax.lax.scan(block, carry, rows)
            carry, seen = visit(carry, jnp.asarray(done, jnp.int32), jax.tree.map(lambda x: x[-1], kept))
            nodes = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), nodes, seen)
            if blocks:
                du.append(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), read))
        z, total, sizes = left_over(carry, done, n - done)
        last = self.see(jnp.asarray(n, jnp.int32), z)
        sizes = jnp.maximum(sizes, sizes_of(jax.lax.stop_gradient(last)))
        read = jax.tree.map(lambda *x: x[0] if len(x) == 1 else jnp.concatenate(x), *du)
        return (last, total, sizes), nodes, backwards(read) if self.order.echo else read
