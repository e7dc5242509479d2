"""Refuse to run on a jaxlib that silently returns wrong numbers.

jaxlib 0.10.2 compiles a vmapped matrix-vector product followed by a reduction wrongly on CPU: rows far
into the batch get the values of others, from 16,385 rows in float64 and 32,769 in float32 (jax-ml/jax issue
39103). echograd processes batches of sequences like this, so no gradient could be trusted.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np

# 0.10.2 fails the reproducer; 0.10.0, 0.10.1 and 0.11.0 abort or hang on CPU (issues 39257 and 39264).
FIRST_REFUSED, FIRST_FIXED = (0, 10), (0, 11, 1)

# These have passed the reproducer. Others run it at import: about a second, and it starts JAX's backends.
KNOWN_GOOD = frozenset({"0.9.2", "0.11.1", "0.12.0.1"})

ROWS = 32_769  # the first float32 batch on which 0.10.2 goes wrong


@functools.cache
def reproduces_wrong_numbers() -> bool:
    """Return whether `jit` changes the values i² of Σⱼ (I x)ⱼ² over 32,769 rows x = (i, 0, 0): the miscompilation."""

    @jax.jit
    @jax.vmap
    def squared_norm(row: jax.Array) -> jax.Array:
        return jnp.sum((matrix @ row) ** 2)

    index = np.arange(ROWS, dtype=np.float32)
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX is configured without a CPU backend
        return False
    # Compile-time evaluation, because the first import of echograd may be inside a traced function. On the CPU, where
    # the bug is: a GPU rounds the factors of products, which would be a false positive.
    with jax.ensure_compile_time_eval(), jax.default_device(cpu):
        matrix = jnp.eye(3, dtype=np.float32)
        zeros = np.zeros_like(index)
        rows = jnp.asarray(np.stack([index, zeros, zeros], axis=1))
        computed = np.asarray(squared_norm(rows))
    return not np.allclose(computed, index**2, rtol=1e-5, atol=0.0)


def check_jaxlib() -> None:
    """Raise if the installed jaxlib is one known to be broken, or is unknown and fails the reproducer.

    Raises:
        ImportError: with the command that installs a version that works.
    """
    version = jaxlib.version.__version__
    if FIRST_REFUSED <= jaxlib.version.__version_info__ < FIRST_FIXED:
        reason = "jaxlib 0.10.0 to 0.11.0 silently return wrong numbers, crash or hang on CPU"
    elif version not in KNOWN_GOOD and reproduces_wrong_numbers():
        reason = "`jit` of a vmapped matrix-vector product followed by a sum returns wrong numbers here"
    else:
        return
    remedy = '"jax==0.12.0.1"' if sys.version_info >= (3, 12) else '"jax==0.9.2"'
    raise ImportError(
        f"echograd refuses to run on jaxlib {version}.\n"
        f"Why: {reason} (jax-ml/jax issue 39103), so no gradient could be trusted.\n"
        f"Remedy: python -m pip install {remedy}"
    )
