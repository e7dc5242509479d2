"""A machine that is a system run by our own integrator, with imperfections."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .. import _checks, _tree
from .._solve import default_integrator
from ..integrators import AbstractIntegrator, Direction, Leapfrog, State, World, is_mirrored, time_reversed
from ..systems import AbstractSystem
from ._imperfections import AbstractImperfection, Occasion, straight_through
from ._machine import AbstractMachine, Order, Record, backwards, mirrored, mirrored_reading


class Simulated(AbstractMachine):
    r"""A simulated machine: a system run by an integrator, and imperfections applied to it.

    Without imperfections it is the model that its owner commands, and `run` then gives the gradients of
    `solve(..., gradient=Echo(nudge))`. Readings are derivatives with respect to the parameters *as realised*: a sensor
    at an element knows what the element does, not what it was meant to be.

    Args:
        imperfections: what is wrong with it, applied in this order.
        plant: `model -> system`, what the machine really is when it is set to a model; by default the model. Readings
            of the model's parameters are then those of the elements that they set, by the chain rule. A plant may hold
            elements that the owner does not know of, and be an `equinox.Module` with arrays of its own.
        integrator: a self-adjoint scheme; by default the one that `solve` takes for the system.

    Raises:
        TypeError: if something in `imperfections` is none.
        ValueError: for `Leapfrog(exact=True)`: a machine is not on a grid.

    Example:
        ```python
        key = jax.random.key(0)
        machine = eg.device.Simulated([eg.device.Mismatch(0.1, key), eg.device.Friction(1e-3)])
        sol = eg.device.run(machine, chain, eg.InitialValue(q, p), dt=0.05, steps=200, nudge=eg.Symmetric(0.1))
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
                raise TypeError(
                    f"Simulated: {x!r} is not an imperfection. Pass a sequence of such as Friction(1e-3), or none."
                )
        if isinstance(self.integrator, Leapfrog) and self.integrator.exact:
            raise ValueError(
                "Simulated: Leapfrog(exact=True) computes in fixed point, so that an echo returns bit for bit; no "
                "kick, friction or noise of a machine is on its grid. Use Leapfrog()."
            )

    def realised(self, model: Any, occasion: Occasion) -> Any:
        """Return the system that the machine is in one run when it is set to a model.

        Its derivative with respect to the model is that of the plant, as if imperfections were added to parameters.
        """
        system = model if self.plant is None else self.plant(model)
        _checks.instance("Simulated", "what plant(model) returns", system, AbstractSystem, "a system")
        meant, static = eqx.partition(system, eqx.is_inexact_array)
        real = meant
        for imperfection in self.imperfections:
            real = imperfection.realised(real, occasion)
        return eqx.combine(jax.tree.map(straight_through, real, meant), static)

    def run(self, order: Order) -> Record:
        n, occasion = order.steps, Occasion(order.experiment, order.run)
        system, pull = eqx.filter_vjp(lambda model: self.realised(model, occasion), order.model)
        integrator = default_integrator(system) if self.integrator is None else self.integrator
        integrator.check(system)
        # Integrators mirror the inputs of an echo themselves, and count its steps down.
        direction: Direction = "echo" if order.echo else "forward"
        inputs = mirrored(system, order.inputs) if order.echo else order.inputs
        is_read: Any = eqx.is_inexact_array if order.echo else False
        world = World(system, inputs, order.dt, order.t0)
        wanted, rest = eqx.partition(world, World(is_read, is_read, False, False))  # pyright: ignore[reportArgumentType]

        def see(k: Int[Array, ""], z: State) -> State:
            for imperfection in self.imperfections:
                z = imperfection.seen(z, k, occasion)
            return z

        def move(k: Int[Array, ""], z: State, seen: State) -> tuple[State, World]:
            """Take the `k`-th step of the run and read it, through the sensors."""
            index = n - 1 - k if order.echo else k
            asked = wanted.at(index), rest.at(index), index
            after, reading = integrator.read(*asked, z, direction)
            if order.echo and is_mirrored(system, z[0]):
                _, reading = integrator.read(*asked, time_reversed(system, seen), "backward")
            elif order.echo and seen is not z:
                _, reading = integrator.read(*asked, seen, direction)
            for imperfection in self.imperfections:
                after = imperfection.moved(after, order.dt, k, occasion)
            return after, reading

        def advance(carry: tuple[State, World], x: tuple[Int[Array, ""], PyTree]) -> Any:
            (z, total), (k, kick) = carry, x
            z = z if kick is None else _tree.add(z, kick)
            seen = see(k, z)
            after, reading = move(k, z, seen)
            return (after, _tree.add(total, reading.without_inputs())), (seen, reading.u)

        z, kicks = order.start, order.kicks
        if kicks is not None:
            z = time_reversed(system, z)
            for imperfection in self.imperfections:
                z, kicks = imperfection.reversed(z, occasion), imperfection.kicked(kicks, occasion)
        steps = jnp.arange(n, dtype=jnp.int32), jax.tree.map(lambda x: x[:-1], kicks)
        (z, total), (nodes, du) = jax.lax.scan(advance, (z, _tree.zeros_like(wanted.without_inputs())), steps)
        z = z if kicks is None else _tree.add(z, jax.tree.map(lambda x: x[-1], kicks))
        last = see(jnp.asarray(n, jnp.int32), z)
        nodes = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), nodes, last)
        if not order.echo:
            return Record(nodes)
        return Record(nodes, pull(total.system)[0], mirrored_reading(system, inputs, backwards(du)))
