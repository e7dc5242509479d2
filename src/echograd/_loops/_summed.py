"""Sums over the steps of a loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jaxtyping import PyTree

from .._internal import _tree
from ._cores import on_all_cores
from ._share import rearranged


def summed(step: Callable[[Any, Any], tuple[Any, PyTree]], steps: Any, state: Any) -> tuple[Any, PyTree]:
    """Return the state after `steps` steps `(k, state) -> (state, x)`, and the sum of all `x`."""
    first, end = jnp.asarray(0, jnp.int32), jnp.asarray(steps, jnp.int32)
    program, shape = jax.make_jaxpr(step, return_shape=True)(first, state)
    plain = jax.default_backend() != "cpu" or jax.config.jax_disable_jit
    run = jaxpr_as_fun(program if plain else rearranged(program))

    def advance(k: Any, carry: Any) -> Any:
        leaves = run(jnp.asarray(k, first.dtype), *jax.tree.leaves(carry[0]))
        state, x = jax.tree.unflatten(jax.tree.structure(shape), leaves)
        return state, _tree.add(carry[1], x)

    loop = jax.lax.fori_loop if plain else on_all_cores
    return loop(first, end, advance, (state, _tree.zeros_like(shape[1])))
