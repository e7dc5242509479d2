"""Functions of the user that close over traced arrays."""

from typing import Any

import equinox as eqx
import jax
from jax.core import Tracer


def hoisted(function: Any, *arguments: Any) -> Any:
    """Return `function` with the traced arrays it closes over turned into leaves, so that they get their gradients."""
    if jax.tree.leaves(eqx.filter(function, eqx.is_array)):
        return function
    converted = eqx.filter_closure_convert(function, *arguments)
    traced = any(isinstance(x, Tracer) for x in jax.tree.leaves(converted))
    return converted if traced else function
