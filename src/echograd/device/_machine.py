"""The interface of a physical machine: it carries out orders and returns records."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from ..integrators import State


class Order(eqx.Module):
    r"""One run of N steps that a machine is to carry out, forward or as an echo.

    All entries are in the machine's own order of events, so a machine need not know about echoes. It is set to the
    parameters of `model` and prepared in the state `start`. For an echo it then reverses its motion,
    $(q, p) \to (\Pi q, -\Pi p)$, usually a flip of all momenta. It passes the nodes 0..N. During step `k`, from node
    `k` to node `k + 1`, `inputs[k]` is held. At each node of an echo, `kicks[k]` is added to coordinates and momenta.

    Attributes:
        model: the system whose array leaves are the parameters as commanded.
        start: coordinates and momenta $(q, p)$ to prepare, before the reversal.
        inputs: PyTree with a leading axis of N steps, or `None`.
        kicks: for an echo, the kicks of $(q, p)$ at each node, with a leading axis of N + 1 nodes; `None` for a
            forward run.
        dt: step length.
        t0: time of the first node of the forward run. In an echo, explicit time dependence runs backwards: see `times`.
        run: number of the run in its experiment: 0 is the forward run, 1, 2, ... are its echoes.
        experiment: number of the experiment.
        steps: number of steps N.

    Example:
        ```python
        zero, dt = jnp.asarray(0), jnp.asarray(0.1)
        order = eg.device.Order(system, (q, p), None, None, dt, 0 * dt, zero, zero, steps=20)
        record = eg.device.Simulated().run(order)
        ```
    """

    model: Any
    start: State
    inputs: PyTree
    kicks: Any  # State | None; internally also `Kicks`
    dt: Float[Array, ""]
    t0: Float[Array, ""]
    run: Int[Array, ""]
    experiment: Int[Array, ""]
    steps: int = eqx.field(static=True)

    @property
    def echo(self) -> bool:
        """Whether this is an echo: with a reversal, kicks, and readings of parameters and inputs."""
        return self.kicks is not None

    @property
    def times(self) -> Any:
        """Times of the nodes in the order in which they are passed; in an echo the clock runs back."""
        nodes = np.arange(self.steps + 1, dtype=self.dt.dtype)
        return self.t0 + (nodes[::-1] if self.echo else nodes) * self.dt


class Record(eqx.Module):
    r"""The readings of a machine during one run.

    Attributes:
        nodes: coordinates and momenta $(q, p)$ at the nodes 0..N in the order in which they are passed, after the kick
            there, on a leading axis. Nodes that no loss depends on may hold any finite numbers, except the first and
            the last.
        parameters: for an echo, the readings $-\sum_k h\,\partial H/\partial\theta$ summed over the run, for the
            floating-point arrays of the order's model, in its tree; `None` for a forward run. Every entry is local: it
            depends on the state where the parameter acts, during a substep in which that state is constant. If the
            mirror of the machine moves coordinates, parameters are read at the mirror image of the path.
        inputs: for an echo, $-h\,\partial H/\partial u_k$ in every step, in the tree of the inputs; `None` for a
            forward run.

    Example: see `device.Order` and `device.Hosted`.
    """

    nodes: State
    parameters: PyTree = None
    inputs: PyTree = None

    @property
    def last(self) -> State:
        """The state at the end, as read."""
        return jax.tree.map(lambda x: x[-1], self.nodes)


class Kicks(eqx.Module):
    """The kicks of an echo at some of its nodes; the others are not kicked.

    Attributes:
        first: the kick of $(q, p)$ at the first node of the echo, or `None`.
        kept: the kicks at the kept nodes (whose number in the forward run is a multiple of the stride), in the order in
            which the echo passes them, on a leading axis; or `None`.
    """

    first: State | None
    kept: State | None

    def everywhere(self, steps: int, stride: int | None) -> State:
        """Return the kicks of all nodes."""
        if stride == 1 and self.first is None and self.kept is not None:
            return self.kept
        like = self.first if self.kept is None else jax.tree.map(lambda x: x[0], self.kept)
        kicks = jax.tree.map(lambda x: jnp.zeros((steps + 1, *x.shape), x.dtype), like)
        if stride is not None:
            kicks = jax.tree.map(lambda x, kept: x.at[steps % stride :: stride].set(kept), kicks, self.kept)
        return kicks if self.first is None else jax.tree.map(lambda x, y: x.at[0].add(y), kicks, self.first)


class Sample(eqx.Module):
    """The part of a record that the owner keeps.

    Attributes:
        kept: coordinates and momenta at the kept nodes, on a leading axis; `None` for an echo, or if no nodes are kept.
        last: coordinates and momenta at the last node.
        sizes: the largest coordinate and the largest momentum that were read at any node.
        parameters, inputs: for an echo, as in a `Record`.
    """

    kept: State | None
    last: State
    sizes: Float[Array, "2"]
    parameters: PyTree = None
    inputs: PyTree = None


class AbstractMachine(eqx.Module):
    """A physical machine: it can be set, prepared, driven, kicked, reversed and read, but not differentiated.

    It may differ from its owner's model: see `Simulated` for imperfections, and `Hosted` for hardware and other
    simulators.

    Example:
        ```python
        class Resting(eg.device.AbstractMachine):  # broken: it never moves
            def run(self, order):
                nodes = jax.tree.map(lambda x: jnp.stack((order.steps + 1) * [x]), order.start)
                return eg.device.Record(nodes, jax.tree.map(jnp.zeros_like, order.model))

        eg.device.run(Resting(), system, start, dt=0.1, steps=20, nudge=eg.Symmetric(0.1))
        ```
    """

    @abc.abstractmethod
    def run(self, order: Order) -> Record:
        """Carry out one order and return the readings."""

    @property
    def reads_in_forward_time(self) -> bool:
        """Whether an echo reads slopes as in the forward run, including those that are odd in the momentum."""
        return False

    def sampled(self, order: Order, stride: int | None) -> Sample:
        """Carry out an order with `Kicks`, and keep every `stride`-th node, or no nodes for `None`."""
        kicks = None if order.kicks is None else order.kicks.everywhere(order.steps, stride)
        record = self.run(eqx.tree_at(lambda o: o.kicks, order, kicks, is_leaf=lambda x: x is None))
        kept = None if order.echo or stride is None else jax.tree.map(lambda x: x[::stride], record.nodes)
        return Sample(kept, record.last, sizes_of(record.nodes), record.parameters, record.inputs)


def sizes_of(z: State) -> Float[Array, "2"]:
    """Return the largest coordinate and the largest momentum."""
    return jnp.stack([_tree.max_abs(x) for x in z])


def mirrored(system: Any, inputs: PyTree) -> PyTree:
    r"""Return $\Pi_u u_k$ for all steps `k` in reversed order, the inputs of an echo. An involution."""
    return backwards(_mirror(system, inputs))


def mirrored_reading(system: Any, inputs: PyTree, reading: PyTree) -> PyTree:
    r"""Return the reading of the inputs from that of the `mirrored` inputs: $\Pi_u^{\sf T} r_k$ in reversed order."""
    dynamic, static = eqx.partition(inputs, eqx.is_inexact_array)
    _, pull = jax.vjp(lambda x: eqx.filter(_mirror(system, eqx.combine(x, static)), eqx.is_inexact_array), dynamic)
    return pull(backwards(reading))[0]


def _mirror(system: Any, inputs: PyTree) -> PyTree:
    return jax.vmap(system.mirror_input)(inputs) if jax.tree.leaves(inputs) else inputs


def backwards(x: PyTree) -> PyTree:
    """Return all arrays with their leading axis reversed."""
    return jax.tree.map(lambda x: x[::-1], x)


def echo_kicks(system: Any, kept: State | None, final: State | None, steps: int, stride: int | None) -> Kicks:
    r"""Return the kicks of unit strength at the nodes of an echo, from the cotangents of the nodes of a forward run.

    The nudge is a force $+\beta\,\partial c/\partial q$; in the variables of the echo, $(q, p) \to (q + \beta\,\Pi
    \bar p,\, p + \beta\,\Pi \bar q)$.
    """

    def turned(bars: State) -> State:
        return system.mirror(bars[1]), system.mirror(bars[0])

    first = None if final is None else turned(final)
    rows = None if kept is None else backwards(jax.vmap(turned)(kept))
    if first is not None and rows is not None and stride is not None and steps % stride == 0:
        # The last node is also a kept node.
        first, rows = None, jax.tree.map(lambda x, y: x.at[0].add(y), rows, first)
    return Kicks(first, rows)


def total_load(kicks: Kicks, sizes: Float[Array, "2"]) -> Float[Array, ""]:
    """Return the sum of all kicks of unit strength, each relative to the sizes of coordinates and momenta."""
    total = jnp.zeros_like(sizes[0])
    if kicks.first is not None:
        total += jnp.sum(sizes_of(kicks.first) / sizes)
    if kicks.kept is not None:
        total += jnp.sum(jax.vmap(sizes_of)(kicks.kept) / sizes[None])
    return total
