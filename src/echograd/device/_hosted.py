"""Machines outside of JAX: hardware, or another simulator, behind a Python function."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.experimental import io_callback
from jaxtyping import PyTree

from .._internal import _checks
from .._internal._errors import ArgumentError, ArgumentTypeError
from ._machine import AbstractMachine, Order, Record


class Hosted(AbstractMachine):
    r"""A machine behind a Python function: real hardware, or any simulator that is not written in JAX.

    The function gets an `Order` of numpy arrays and returns a `Record` of such; what it does in between is its own
    business.

    - *When it is called:* once for every run that is ordered and never otherwise, under `jit` too: the forward run
      first, then the echoes in the order of their number, `order.run`.
    - *Under `vmap`* the examples take turns: the forward runs of all, then the first echo of each. So prepare every run
      from `order.start`; the state that the last run left may be another example's.
    - *Two calls of `device.run` in one loss* are two experiments, and neither comes first unless the other needs what
      it returns.
    - *Hardware whose state cannot be prepared* may repeat the forward run of the experiment, as it was ordered as run
      0, and reverse where that ends: one more run for every echo.
    - *No JAX:* call no JAX function in it.

    Args:
        function: `order -> Record`. Keep one function for one machine: another object is compiled anew.

    Raises:
        TypeError: for what is not a function; (at run time) if it returns no `Record`.
        ValueError: (at run time) if what it returns is not shaped as asked, or not finite. Both arrive as JAX's error
            of a failed callback, which quotes them.

    Example:
        ```python
        def oscillator(order):  # in numpy: h = p**2 / 2 + stiffness * q**2 / 2 by leapfrog
            (q, p), h, k = order.start, order.dt, order.model.stiffness
            nodes, reading, p = [], 0.0 * k, -p if order.echo else p
            for i in range(order.steps + 1):
                if order.echo:
                    q, p = q + order.kicks[0][i], p + order.kicks[1][i]
                nodes.append((q, p))
                if i < order.steps:
                    q = q + h / 2 * p
                    reading, p = reading - h * q**2 / 2, p - h * k * q
                    q = q + h / 2 * p
            q, p = map(np.stack, zip(*nodes))
            return eg.device.Record((q, p), Oscillator(reading) if order.echo else None)

        machine = eg.device.Hosted(oscillator)
        ```
    """

    function: Callable[[Order], Record] = eqx.field(
        static=True, converter=_checks.converter(_checks.function, "Hosted", "function", "(order) -> Record")
    )

    def run(self, order: Order) -> Record:
        dynamic, static = eqx.partition(order, eqx.is_array)
        expected = _expected(order)

        def call(dynamic: PyTree) -> Record:
            told = eqx.combine(jax.tree.map(np.asarray, dynamic), static)
            return _accepted(self.function(told), expected, told)

        # A callback with effects: neither left out, nor repeated, nor shared. Its order is that of the data, each echo
        # being one turn of a loop: an ordered callback could not be batched.
        return io_callback(call, expected, dynamic)


def _expected(order: Order) -> Record:
    """Return the shapes of what a run must return: of nothing but floating-point arrays."""

    def shapes(x: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), eqx.filter(x, eqx.is_inexact_array))

    nodes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((order.steps + 1, *x.shape), x.dtype), order.start)
    return Record(nodes, shapes(order.model), shapes(order.inputs)) if order.echo else Record(nodes)


def _accepted(record: Any, expected: Record, order: Order) -> Record:
    """Return what a function returned as arrays of the expected types, or say what does not fit."""
    if not isinstance(record, Record):
        raise ArgumentTypeError(
            f"Hosted: the function returned a {type(record).__name__}, not an echograd.device.Record."
        )
    like = {"nodes": order.start, "parameters": order.model, "inputs": order.inputs}
    trees = {}
    for name, tree in like.items():
        leaves, structure = jax.tree.flatten(getattr(expected, name))
        found = jax.tree.leaves(getattr(record, name))
        is_read = [eqx.is_inexact_array_like(x) and not isinstance(x, float) for x in jax.tree.leaves(tree)]
        if len(found) == len(is_read):  # with what is not read in between, as in a model
            found = [x for x, read in zip(found, is_read, strict=True) if read]
        if not leaves:
            found = []
        remedy = f"Return {_WHAT[name]}."
        if len(found) != len(leaves):
            raise ArgumentError(
                f"Hosted: the {name} of the returned Record are {len(found)} arrays where {len(leaves)} were asked "
                f"for. {remedy}"
            )
        for i, (x, y) in enumerate(zip(found, leaves, strict=True)):
            if np.shape(x) != y.shape:
                raise ArgumentError(
                    f"Hosted: the {name} of the returned Record have shape {np.shape(x)} in array {i}, where {y.shape} "
                    f"was asked for. {remedy}"
                )
            if not np.all(np.isfinite(x)):
                raise ArgumentError(
                    f"Hosted: the {name} of the returned Record are not finite in array {i}. The machine ran away, or "
                    f"was not read. {remedy}"
                )
        arrays = [np.asarray(x, y.dtype) for x, y in zip(found, leaves, strict=True)]
        trees[name] = jax.tree.unflatten(structure, arrays)
    return Record(**trees)


_WHAT = {
    "nodes": "a pair (q, p) with a leading axis of N + 1 nodes",
    "parameters": "of an echo the summed reading of every array of numbers in the model, as a model that holds them",
    "inputs": "of an echo the reading of every step's input, shaped like the inputs",
}
