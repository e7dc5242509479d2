"""Machines outside of JAX: hardware or another simulator, called through a Python function."""

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

    The function gets an `Order` of numpy arrays and returns a `Record` of numpy arrays.

    - *When it is called:* exactly once for every ordered run, also under `jit`: first the forward run, then the echoes
      in the order of their number, `order.run`.
    - *Under `vmap`* the examples take turns: the forward runs of all examples, then the first echo of each. So prepare
      every run from `order.start`; the machine may be in the final state of another example.
    - *Two calls of `device.run` in one loss* are two experiments. Their order is undefined, unless one needs the result
      of the other.
    - *Hardware whose state cannot be prepared* may repeat the forward run of the experiment (run 0) and reverse at its
      end: one more run for every echo.
    - *No JAX:* the function must not call JAX.

    Args:
        function: `order -> Record`. Keep one function object per machine: another object is compiled again.

    Raises:
        ArgumentTypeError: if `function` is not a function; at run time, if it does not return a `Record`.
        ArgumentError: at run time, if the arrays of the record have wrong shapes, or hold a NaN or an infinity. JAX
            reports run-time errors as a failed callback, with the message.

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

        # A callback with effects is neither removed, repeated nor shared. An ordered callback could not be batched; the
        # order follows from the data, as each echo is one iteration of a loop.
        return io_callback(call, expected, dynamic)


def _expected(order: Order) -> Record:
    """Return the shapes of the floating-point arrays that a run must return."""

    def shapes(x: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), eqx.filter(x, eqx.is_inexact_array))

    nodes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((order.steps + 1, *x.shape), x.dtype), order.start)
    return Record(nodes, shapes(order.model), shapes(order.inputs)) if order.echo else Record(nodes)


def _accepted(record: Any, expected: Record, order: Order) -> Record:
    """Return the record of a function with arrays of the expected types, or raise."""
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
        if len(found) == len(is_read):  # a whole model, with leaves that are not read
            found = [x for x, read in zip(found, is_read, strict=True) if read]
        if not leaves:
            found = []
        remedy = f"Return {_WHAT[name]}."
        if len(found) != len(leaves):
            raise ArgumentError(
                f"Hosted: the {name} of the returned Record are {len(found)} arrays, and {len(leaves)} are needed. "
                f"{remedy}"
            )
        for i, (x, y) in enumerate(zip(found, leaves, strict=True)):
            if np.shape(x) != y.shape:
                raise ArgumentError(
                    f"Hosted: the {name} of the returned Record have shape {np.shape(x)} in array {i}, and {y.shape} "
                    f"is needed. {remedy}"
                )
            if not np.all(np.isfinite(x)):
                raise ArgumentError(
                    f"Hosted: the {name} of the returned Record hold a NaN or an infinity in array {i}. The machine "
                    f"may have run away, or was not read. {remedy}"
                )
        arrays = [np.asarray(x, y.dtype) for x, y in zip(found, leaves, strict=True)]
        trees[name] = jax.tree.unflatten(structure, arrays)
    return Record(**trees)


_WHAT = {
    "nodes": "a pair (q, p) with a leading axis of N + 1 nodes",
    "parameters": "from an echo the summed reading of every floating-point array of the model, in its tree",
    "inputs": "from an echo the reading of the input of every step, shaped like the inputs",
}
