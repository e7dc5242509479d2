"""Checks of the arguments that units, norms and models have in common."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError
from ..gradients import AbstractGradient, Backprop, Echo, Reciprocal
from ..integrators import State


def check_sizes(owner: str, **sizes: Any) -> None:
    """Raise unless all sizes are positive integers."""
    for name, size in sizes.items():
        _checks.integer(owner, name, size, what="a size")


def checked_angles(owner: str, angles: Any) -> tuple[float, float]:
    """Return the bounds of the rotation angles per step."""
    return _checks.interval(
        owner, "angles", angles, "rotation angles per step lie between 0 and pi", lambda x: 0 < x < math.pi
    )


def checked_decays(owner: str, decays: Any) -> tuple[float, float]:
    """Return the bounds of the decay rates per step."""
    return _checks.interval(owner, "decays", decays, "decay rates per step are positive", lambda x: 0 < x < math.inf)


def checked_gradient(owner: str, gradient: Any, *, lossy: bool = False) -> AbstractGradient:
    """Return the gradient of a unit, or raise if it does not apply.

    Args:
        owner: name of the unit or model, for messages.
        gradient: the gradient; `None` for the default, an echo without damping and `Reciprocal()` with it.
        lossy: whether the oscillators are damped.
    """
    if gradient is None:
        return Reciprocal() if lossy else Echo()
    choices = "Reciprocal() or Backprop()" if lossy else "Echo() or Backprop()"
    what = f"a gradient object. Pass {choices}, with its parentheses"
    gradient = _checks.instance(owner, "gradient", gradient, AbstractGradient, what)
    if isinstance(gradient, Backprop) or (isinstance(gradient, Echo) and not lossy):
        return gradient
    name = type(gradient).__name__
    if not lossy:
        why = "a rule of echograd.solve that sequence models do not have"
        if isinstance(gradient, Reciprocal):
            why = 'for damped oscillators: DampedHRU, or HSSM(unit="damped")'
        raise ArgumentTypeError(f"{owner}: gradient={name}(...) is {why}. Undamped units take {choices}.")
    if not isinstance(gradient, Reciprocal):
        raise ArgumentTypeError(
            f"{owner}: gradient={name}(...) cannot be used with damped oscillators. They lose energy, so the machine "
            f"run back from its final state does not retrace its path. Pass {choices}; both are exact."
        )
    if gradient.nudge is not None:
        raise ArgumentTypeError(
            f"{owner}: gradient=Reciprocal({type(gradient.nudge).__name__}(...)) is not available in sequence models. "
            "Pass Reciprocal() without a nudge: it overlaps two records, which is exact at any amplitude."
        )
    return gradient


def checked_input(owner: str, x: Any, dtype: Any, features: int, *axes: str, nan: bool = False) -> Array:
    """Return the input of a layer as an array with the features last, or raise.

    Args:
        owner: name of the layer, for messages.
        x: one row, a sequence, or a batch of sequences.
        dtype: dtype of the parameters of the layer.
        features: required number of features.
        axes: names of the axes before the features; a first axis named "batch" is optional.
        nan: whether NaNs and infinities pass, because a mask removes them later.
    """
    x = _checks.numbers(owner, "the input", x)
    if not isinstance(x, jax.Array):
        raise ArgumentTypeError(f"{owner}: the input must be one array of numbers, and is {_checks.shown(x)}.")
    shapes = [axes[1:], axes] if axes[:1] == ("batch",) else [axes]
    if x.shape[-1:] != (features,) or x.ndim - 1 not in map(len, shapes):
        wanted = " or ".join(f"({', '.join((*shape, str(features)))}{'' if shape else ','})" for shape in shapes)
        raise ArgumentError(f"{owner}: the input has shape {x.shape}, and {wanted} is needed.")
    if x.size == 0:
        raise ArgumentError(f"{owner}: the input has shape {x.shape}, so it is empty. Pass at least one step.")
    if x.dtype != dtype:
        raise ArgumentTypeError(
            f"{owner}: the input is {x.dtype}, and the parameters are {dtype}. Convert one of them."
        )
    _tree.check_digits(owner, "the input", x)
    _tree.check_usable(owner, "the input", x)
    return x if nan else _checks.finite(owner, "the input", x)


def checked_state(owner: str, state: Any, rest: State, batch: tuple[int, ...] = ()) -> State:
    """Return the state of a unit, or raise.

    Args:
        owner: name of the unit, for messages.
        state: the state.
        rest: the state at rest, a pair of arrays of shape (channels, units).
        batch: leading axes that the arrays of the state need.
    """
    remedy = f"Begin with unit.initial_state({', '.join(map(str, batch))})."
    if not isinstance(state, tuple) or len(state) != 2:
        raise ArgumentTypeError(
            f"{owner}: state={_checks.shown(state)} is not a pair (q, p) of positions and momenta. {remedy}"
        )
    for i, (x, zero) in enumerate(zip(_checks.numbers(owner, "state", state), rest, strict=True)):
        if not isinstance(x, jax.Array):
            raise ArgumentTypeError(
                f"{owner}: state[{i}] must be one array of numbers, and is {_checks.shown(x)}. {remedy}"
            )
        if x.shape != (shape := (*batch, *zero.shape)):
            axes = ", ".join((*["batch"] * len(batch), "channels", "units"))
            raise ArgumentError(f"{owner}: state[{i}] has shape {x.shape}, and {shape}, ({axes}), is needed. {remedy}")
        if x.dtype != zero.dtype:
            raise ArgumentTypeError(
                f"{owner}: state[{i}] is {x.dtype}, and the parameters are {zero.dtype}. Convert one of them."
            )
    _tree.check_usable(owner, "state", state)
    return _checks.finite(owner, "state", state)


def checked_mask(owner: str, mask: Any, x: Float[Array, "*batch steps inputs"]) -> Bool[Array, "*batch steps"]:
    """Return the mask of sequences, or raise if its shape or dtype is wrong, or, at run time, if it has gaps."""
    mask = _checks.numbers(owner, "mask", mask)
    if jnp.shape(mask) != x.shape[:-1]:
        raise ArgumentError(
            f"{owner}: the mask has shape {jnp.shape(mask)}, and {x.shape[:-1]}, (*batch, steps), is needed."
        )
    if mask.dtype != jnp.bool_:
        raise ArgumentTypeError(
            f"{owner}: the mask is {mask.dtype}, and booleans are needed: mask > 0, or "
            "jnp.arange(steps)[None] < lengths[:, None]."
        )
    return eqx.error_if(
        mask,
        jnp.any(mask[..., 1:] & ~mask[..., :-1]),
        f"{owner}: the mask has a masked step before a valid one. Oscillators run through every step, so put padding "
        "after the sequence, and fill gaps.",
    )
