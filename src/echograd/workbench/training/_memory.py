"""Refuses a model that does not fit into memory before any of it is allocated."""

from typing import Any

import jax

from echograd import ArgumentError
from echograd._internal._format import memory, physical_memory


def check_memory(model: Any, moments: Any = None, inputs: int = 0) -> None:
    """Raise if a model, its gradient, moments of an optimiser and a batch need more memory than the machine has.

    What is counted is a lower bound, without temporary arrays.

    Args:
        model: the model, with the shapes of its arrays in their place, as `equinox.filter_eval_shape` returns it.
        moments: those of the optimiser, likewise.
        inputs: how many numbers the inputs of one batch are.

    Raises:
        ValueError: with the size and the limit.
    """
    size, batch = 2 * _size(model) + _size(moments), 4 * inputs
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit") or physical_memory()
    if limit is not None and size + batch > limit:
        batches = f", a batch {memory(batch)}" if batch else ""
        raise ArgumentError(
            f"the model and its gradient take {memory(size)} at the least{batches}, and there are {memory(limit)} of "
            "memory. Use fewer units, a smaller width, fewer blocks or smaller batches."
        )


def _size(tree: Any) -> int:
    shapes = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.ShapeDtypeStruct)]
    return sum(x.size * x.dtype.itemsize for x in shapes)
