"""What a physical machine is to its owner: something that takes orders and returns records."""

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
    r"""What a machine is told to do: one run of N steps, forward or as an echo.

    Everything is said in the machine's own terms, in the order in which it happens to it, so that a machine need not
    know what an echo is for. It is set to the parameters of `model` and prepared in the state `start`. For an echo it
    then reverses its motion, $(q, p) \to (\Pi q, -\Pi p)$, mostly a flip of all momenta. On its way it passes the nodes
    0..N, with step `k` between node `k` and `k + 1`, during which `inputs[k]` is held. At each node of an echo it is
    kicked: `kicks[k]` is added to coordinates and momenta.

    Attributes:
        model: the system whose array leaves are the parameters as commanded.
        start: coordinates and momenta $(q, p)$ to be prepared, before the reversal.
        inputs: PyTree with a leading axis of N steps, or `None`.
        kicks: of an echo, what is added to $(q, p)$ at each node, with a leading axis of N + 1 nodes; `None` for a
            forward run.
        dt: step length.
        t0: time of the forward run's first node. Explicit time dependence is played backwards in an echo: see `times`.
        run: which run of the experiment this is: 0 is the forward run, 1, 2, ... are its echoes.
        experiment: which experiment this is.
        steps: number of steps N.
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
        """Whether this is an echo: to begin with a reversal, to be kicked, and to be read for parameters and inputs."""
        return self.kicks is not None

    @property
    def times(self) -> Any:
        """Times of the nodes as they are passed; in an echo the clock runs back."""
        nodes = np.arange(self.steps + 1, dtype=self.dt.dtype)
        return self.t0 + (nodes[::-1] if self.echo else nodes) * self.dt


class Record(eqx.Module):
    r"""What a machine has read during one run.

    Attributes:
        nodes: coordinates and momenta $(q, p)$ at each node 0..N as it was passed, after the kick there, on a leading
            axis. What the owner does not read, and no loss asks for, may be anything finite but the first and the last.
        parameters: of an echo, the readings $-\sum_k h\,\partial H/\partial\theta$ summed over the run, in the tree of
            the order's model, of its floating-point arrays; `None` of a forward run. Every entry is local: it
            takes what is seen where the parameter acts, during a substep in which that stands still. If the mirror of
            the machine moves coordinates, parameters are read where the mirror image of its path goes.
        inputs: of an echo, $-h\,\partial H/\partial u_k$ in every step, in the tree of the inputs; `None` of a forward
            run.
    """

    nodes: State
    parameters: PyTree = None
    inputs: PyTree = None

    @property
    def last(self) -> State:
        """The state at the end, as read."""
        return jax.tree.map(lambda x: x[-1], self.nodes)


class Kicks(eqx.Module):
    """The kicks of an echo at some of its nodes. All other nodes are not kicked.

    Attributes:
        first: what is added to $(q, p)$ at the first node of the echo, or `None`.
        kept: what is added at the kept nodes (those of the forward run whose number is a multiple of the stride), in
            the order in which the echo passes them, on a leading axis; or `None`.
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
    """What an owner keeps of a run.

    Attributes:
        kept: coordinates and momenta at the kept nodes, on a leading axis; `None` of an echo, or if none are kept.
        last: those at the last node.
        sizes: the largest coordinate and the largest momentum that were read at any node.
        parameters, inputs: of an echo, as in a `Record`.
    """

    kept: State | None
    last: State
    sizes: Float[Array, "2"]
    parameters: PyTree = None
    inputs: PyTree = None


class AbstractMachine(eqx.Module):
    """A physical machine: it can be set, prepared, driven, kicked, reversed and read, and not be differentiated.

    It need not be the machine that its owner believes it to be: see `Simulated` for imperfections, and `Hosted` for
    hardware and foreign simulators.
    """

    @abc.abstractmethod
    def run(self, order: Order) -> Record:
        """Carry out one order and return what was read."""

    @property
    def reads_in_forward_time(self) -> bool:
        """Whether an echo reads the slopes that the forward run had, also where these are odd in the momentum."""
        return False

    def sampled(self, order: Order, stride: int | None) -> Sample:
        """Carry out an order with `Kicks`, and return what is kept: every `stride`-th node, or none if it is `None`."""
        kicks = None if order.kicks is None else order.kicks.everywhere(order.steps, stride)
        record = self.run(eqx.tree_at(lambda o: o.kicks, order, kicks, is_leaf=lambda x: x is None))
        kept = None if order.echo or stride is None else jax.tree.map(lambda x: x[::stride], record.nodes)
        return Sample(kept, record.last, sizes_of(record.nodes), record.parameters, record.inputs)


def sizes_of(z: State) -> Float[Array, "2"]:
    """Return the largest coordinate and the largest momentum."""
    return jnp.stack([_tree.max_abs(x) for x in z])


def mirrored(system: Any, inputs: PyTree) -> PyTree:
    r"""Return $\Pi_u u_k$ for all steps `k`, in the reversed order: the inputs of an echo. Its own inverse."""
    return backwards(_mirror(system, inputs))


def mirrored_reading(system: Any, inputs: PyTree, reading: PyTree) -> PyTree:
    r"""Return the reading of inputs, from that of `mirrored` ones: $\Pi_u^{\sf T} r_k$, in the reversed order."""
    dynamic, static = eqx.partition(inputs, eqx.is_inexact_array)
    _, pull = jax.vjp(lambda x: eqx.filter(_mirror(system, eqx.combine(x, static)), eqx.is_inexact_array), dynamic)
    return pull(backwards(reading))[0]


def _mirror(system: Any, inputs: PyTree) -> PyTree:
    return jax.vmap(system.mirror_input)(inputs) if jax.tree.leaves(inputs) else inputs


def backwards(x: PyTree) -> PyTree:
    """Return all arrays with their leading axis reversed."""
    return jax.tree.map(lambda x: x[::-1], x)


def echo_kicks(system: Any, kept: State | None, final: State | None, steps: int, stride: int | None) -> Kicks:
    r"""Return the kicks of unit strength that nodes of an echo get from the cotangents of the nodes of a forward run.

    The nudge is a force $+\beta\,\partial c/\partial q$; in the variables of the echo, $(q, p) \to (q + \beta\,\Pi
    \bar p,\, p + \beta\,\Pi \bar q)$.
    """

    def turned(bars: State) -> State:
        return system.mirror(bars[1]), system.mirror(bars[0])

    first = None if final is None else turned(final)
    rows = None if kept is None else backwards(jax.vmap(turned)(kept))
    if first is not None and rows is not None and stride is not None and steps % stride == 0:
        # The last node is a kept one.
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
