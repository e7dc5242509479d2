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
        n, run_id = order.steps, RunId(order.experiment, order.run)
        system, pull = eqx.filter_vjp(lambda model: self.realised(model, run_id), order.model)
        integrator = default_integrator(system) if self.integrator is None else self.integrator
        integrator.check(system)
        # Integrators mirror the inputs of an echo themselves, and index its steps as in the forward run.
        direction: Direction = "echo" if order.echo else "forward"
        inputs = mirrored(system, order.inputs) if order.echo else order.inputs
        is_read: Any = eqx.is_inexact_array if order.echo else False
        given = StepInputs(system, inputs, order.dt, order.t0)
        wanted, rest = eqx.partition(given, StepInputs(is_read, is_read, False, False))  # pyright: ignore[reportArgumentType]
        even = surely_even(given, order.start)

        def see(k: Int[Array, ""], z: State) -> State:
            for imperfection in self.imperfections:
                z = imperfection.seen(z, k, run_id)
            return z

        def move(carry: Any, k: Int[Array, ""]) -> tuple[Any, PyTree]:
            """Take the `k`-th step of the run, and read it through the sensors."""
            z, total, sizes = carry
            seen, index = see(k, z), n - 1 - k if order.echo else k
            asked = wanted.at(index), rest.at(index), index
            after, reading = integrator.read(*asked, z, direction)
            if order.echo and not even:
                # Read in forward time: the mirror may exchange parameters, and changes the sign of odd slopes.
                _, reading = integrator.read(*asked, time_reversed(system, seen), "backward")
            elif order.echo and seen is not z:
                _, reading = integrator.read(*asked, seen, direction)
            for imperfection in self.imperfections:
                after = imperfection.moved(after, order.dt, k, run_id)
            sizes = jnp.maximum(sizes, sizes_of(jax.lax.stop_gradient(seen)))
            return (after, _tree.add(total, reading.without_inputs()), sizes), reading.u

        du = []  # readings of inputs, one array per scan

        def moves(carry: Any, first: Any, steps: int) -> Any:
            if steps:
                carry, stretch = jax.lax.scan(move, carry, first + jnp.arange(steps, dtype=jnp.int32))
                du.append(stretch)
            return carry

        def visit(carry: Any, k: Int[Array, ""], kick: State | None) -> tuple[Any, State | None]:
            """Kick a node, and read it."""
            z, *others = carry
            z = z if kick is None else _tree.add(z, kick)
            return (z, *others), see(k, z) if keep else None

        z, kicks = order.start, order.kicks
        if kicks is not None:
            z = time_reversed(system, z)
            for imperfection in self.imperfections:
                z = imperfection.reversed(z, run_id)
                kicks = jax.tree.map(lambda x, i=imperfection: i.kicked(x, run_id), kicks, is_leaf=_is_state)
        zero = jnp.zeros((), jnp.int32)
        carry = z, _tree.zeros_like(wanted.without_inputs()), jnp.zeros_like(sizes_of(z))
        if kicks is not None and kicks.first is not None:
            carry = _tree.add(z, kicks.first), *carry[1:]
        blocks, start = (0, 0) if stride is None else (n // stride, n % stride if order.echo else 0)
        carry, nodes = moves(carry, zero, start), None
        if stride is not None:

            def block(carry: Any, row: tuple[Int[Array, ""], State | None]) -> tuple[Any, Any]:
                k, kick = row
                carry, seen = visit(carry, k, kick)
                carry, read = jax.lax.scan(move, carry, k + jnp.arange(stride, dtype=jnp.int32))
                return carry, (seen, read)

            kept = None if kicks is None else kicks.kept
            rows = start + stride * jnp.arange(blocks, dtype=jnp.int32), jax.tree.map(lambda x: x[:-1], kept)
            carry, (nodes, between) = jax.lax.scan(block, carry, rows)
            end = jnp.asarray(start + stride * blocks, jnp.int32)
            carry, seen = visit(carry, end, jax.tree.map(lambda x: x[-1], kept))
            nodes = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), nodes, seen)
            if blocks:
                du.append(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), between))
        done = start + blocks * (stride or 0)
        z, total, sizes = moves(carry, jnp.asarray(done, jnp.int32), n - done)
        last = see(jnp.asarray(n, jnp.int32), z)
        sizes = jnp.maximum(sizes, sizes_of(jax.lax.stop_gradient(last)))
        if not order.echo:
            return Sample(None, last, sizes), nodes
        read = backwards(jax.tree.map(lambda *x: x[0] if len(x) == 1 else jnp.concatenate(x), *du))
        return Sample(None, last, sizes, pull(total.system)[0], mirrored_reading(system, inputs, read)), nodes


def _is_state(x: Any) -> bool:
    return isinstance(x, tuple)
