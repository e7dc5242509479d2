"""What the library said when it refused to go on, without the text that equinox and JAX put around it."""

import re

import equinox as eqx
import jax

from ._words import memory

# What a compiled program raises: by `equinox.filter_jit`, and by `jax.jit` or a callback.
RUNTIME_ERRORS = (eqx.EquinoxRuntimeError, jax.errors.JaxRuntimeError)

_EXHAUSTED = re.compile(r"RESOURCE_EXHAUSTED.*?allocat\w+ (\d+) bytes", re.DOTALL)
# The last exception of a printed stack, and its message up to the rule that ends it.
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception): (.*?)(?=\s*\n-{5,}|\Z)", re.DOTALL | re.MULTILINE)


def said(error: BaseException) -> str:
    """Return the message of an error: of one that comes out of a compiled program, only the sentences that were raised.

    Args:
        error: any error. `equinox.error_if` wraps its message into a stack and advice on debugging.

    Example:
        ```python
        try:
            solve(system, start, dt=50.0, steps=10)
        except RUNTIME_ERRORS as error:
            print(said(error))
        ```
    """
    text = str(error).strip()
    if not isinstance(error, RUNTIME_ERRORS):
        return text or type(error).__name__
    exhausted = _EXHAUSTED.search(text)
    if exhausted:
        return (
            f"out of memory: a compiled program needs {memory(int(exhausted[1]))} at once, which are not free. Use a "
            "smaller model, smaller batches or fewer steps."
        )
    if "stack inside of JIT" in text or "Traceback (most recent call last)" in text:
        raised = _RAISED.findall(text)
        text = raised[-1].strip() if raised else text
    return text.partition("\n=== Source Location Trace")[0].strip()
