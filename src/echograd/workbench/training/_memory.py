"""Check that a model fits into memory, before anything is allocated."""

from typing import Any

import jax

from echograd import ArgumentError
from echograd._internal._format import memory, physical_memory


def check_memory(model: Any, moments: Any = None, inputs: int = 0) -> None:
    """Raise if a model, its gradient, moments of an optimiser and a batch need more memory than the machine has.

    The count is a lower bound: it has no temporary arrays.

    Args:
        model: the model with shapes in place of arrays, as `equinox.filter_eval_shape` returns it.
        moments: moments of the optimiser, likewise.
        inputs: number of values in the inputs of one batch.

    Raises:
        ArgumentError: the message quotes the size and the limit.
    """
    size, batch = 2 * _size(model) + _size(moments), 4 * inputs
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit") or physical_memory()
    if limit is not None and size + batch > limit:
        batches = f", a batch {memory(batch)}" if batch else ""
        raise ArgumentError(
            f"the model and its gradient take at least {memory(size)}{batches}, but the machine has {memory(limit)} of "
            "memory. Use fewer units, a smaller hidden width, fewer blocks or smaller batches."
        )


def _size(tree: Any) -> int:
    shapes = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.ShapeDtypeStruct)]
    return sum(x.size * x.dtype.itemsize for x in shapes)
