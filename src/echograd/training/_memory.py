"""Refuses a model that does not fit into memory before any of it is allocated."""

from typing import Any

import equinox as eqx
import jax

from .._words import memory, physical_memory


def check_memory(config: Any, learner: Any, inputs: int) -> None:
    """Raise if a learner, its gradient and one batch need more memory than the machine has.

    Args:
        config: the run.
        learner: shapes and dtypes of all arrays that training changes, as `equinox.filter_eval_shape` returns them.
        inputs: numbers that the features of one batch hold at the least.

    Raises:
        ValueError: with the size and the limit. The size is a lower bound: it counts no temporary arrays.
    """
    leaves = jax.tree.leaves(eqx.filter(learner, lambda x: isinstance(x, jax.ShapeDtypeStruct)))
    parameters = jax.tree.leaves(eqx.filter(learner.model, lambda x: isinstance(x, jax.ShapeDtypeStruct)))
    size = sum(x.size * x.dtype.itemsize for x in [*leaves, *parameters])
    batch = inputs * (8 if config.precision == "float64" else 4)
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit") or physical_memory()
    if limit is not None and size + batch > limit:
        raise ValueError(
            f"the model with its gradient and the moments of the optimiser takes {memory(size)}, a batch "
            f"{memory(batch)}, and there are {memory(limit)} of memory. Lower network.units, network.hidden, "
            "network.blocks or batch_size."
        )
