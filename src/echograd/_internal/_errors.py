"""All errors that echograd raises on purpose, and those of compiled programs at run time."""

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._format import memory

# Errors of compiled programs: from `equinox.filter_jit`, and from `jax.jit` or a callback.
RUNTIME_ERRORS = (eqx.EquinoxRuntimeError, jax.errors.JaxRuntimeError)

_EXHAUSTED = re.compile(r"RESOURCE_EXHAUSTED.*?allocat\w+ (\d+) bytes", re.DOTALL)
# The last exception of a printed stack, and its message up to the rule that ends it.
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception): (.*?)(?=\s*\n-{5,}|\Z)", re.DOTALL | re.MULTILINE)


class EchogradError(Exception):
    """An error that echograd raises on purpose. Its message says what is wrong, why, and what to do.

    Catch this class to handle any of them; a bug of echograd keeps its own error and its traceback. The subclasses are
    Python's usual errors as well: `ArgumentError` is a `ValueError`, `ArgumentTypeError` a `TypeError`, `RunError` a
    `RuntimeError`.

    Example:
        ```python
        try:
            eg.solve(system, start, dt=50.0, steps=10)
        except eg.EchogradError as error:
            print(error)  # solve: the step is unstable. ...
        ```
    """


class ArgumentError(EchogradError, ValueError):
    """An argument has the right type and a wrong value: a number out of range, shapes that do not fit together.

    Example: see `EchogradError`.
    """


class ArgumentTypeError(EchogradError, TypeError):
    """An argument has the wrong type, or a system or gradient cannot be combined with the others.

    Example: see `EchogradError`.
    """


class RunError(EchogradError, eqx.EquinoxRuntimeError):
    """A measurement at run time shows that a result would be wrong. The message quotes the measured number.

    Example: see `plain_errors`.
    """


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Raise `RunError`, with the message alone, for run-time errors of compiled programs in a block of code.

    JAX wraps errors of compiled code into its own, with a long stack. `solve` and `equilibrium` unwrap them when they
    are called outside of `jit` and `grad`. Put your own gradients and compiled functions into such a block.

    Raises:
        RunError: for a run-time error of a compiled program.

    Example:
        ```python
        with eg.plain_errors():
            gradient = eqx.filter_grad(loss)(system)
        ```
    """
    try:
        yield
    except RUNTIME_ERRORS as error:
        if isinstance(error, RunError):
            raise
        raise RunError(said(error)) from None


def said(error: BaseException) -> str:
    """Return the message of an error, without the stack and advice that JAX and equinox add to it."""
    text = str(error).strip()
    if not isinstance(error, RUNTIME_ERRORS):
        return text or type(error).__name__
    exhausted = _EXHAUSTED.search(text)
    if exhausted:
        return (
            f"out of memory: a compiled program needs {memory(int(exhausted[1]))} at once, more than is free. Use a "
            "smaller model, smaller batches or fewer steps."
        )
    if "stack inside of JIT" in text or "Traceback (most recent call last)" in text:
        raised = _RAISED.findall(text)
        text = raised[-1].strip() if raised else text
    return text.partition("\n=== Source Location Trace")[0].strip()


# A measured number reaches the message as an integer: its decimal logarithm in thousandths, three digits.
_RESOLUTION = 1000
_ZERO, _INFINITE, _NAN = -(10**6), 10**6, 10**6 + 1


class _Messages(Sequence[str]):
    """The messages of a text with one gap, indexed by the integer that encodes the number in the gap."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __getitem__(self, index: Any) -> Any:
        special = {_ZERO: 0.0, _INFINITE: math.inf, _NAN: math.nan}
        value = special[index] if index in special else 10.0 ** (index / _RESOLUTION)
        return self.text.format(f"{value:.3g}")

    def __len__(self) -> int:
        return 2 * _INFINITE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Messages) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def refuse_if(x: Any, wrong: Bool[Array, "..."], text: str, measured: Float[Array, "..."]) -> Any:
    """Return `x`, or raise at run time if `wrong` is true, with the measured number in the text.

    Args:
        x: a PyTree with at least one array. Computations that use the result run after the check.
        wrong: whether to raise; under `vmap`, whether any member of the batch is wrong.
        text: the message, with `{}` where the number belongs.
        measured: a number that is not negative; under `vmap` the largest of the batch is quoted.
    """
    size = jax.lax.stop_gradient(jnp.abs(measured))
    tiny = jnp.finfo(size.dtype).tiny
    index = jnp.round(_RESOLUTION * jnp.log10(jnp.clip(size, tiny, jnp.finfo(size.dtype).max))).astype(jnp.int32)
    index = jnp.where(size < tiny, _ZERO, jnp.where(jnp.isinf(size), _INFINITE, index))
    index = jnp.where(jnp.isnan(size), _NAN, index)
    return eqx.branched_error_if(x, wrong, index, _Messages(text))
