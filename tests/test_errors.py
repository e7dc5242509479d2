"""Messages of errors are extracted from the text that equinox and JAX add to them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from echograd._internal._errors import RUNTIME_ERRORS, said

pytestmark = pytest.mark.fast

SENTENCE = "solve: 5.2 is above 4.\nShorten dt."


def refused(x):
    return eqx.error_if(x, x > 0, SENTENCE)


def called_back(x):
    def refuse(x):
        raise ValueError(SENTENCE)

    return jax.pure_callback(refuse, x, x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compiled", [eqx.filter_jit(refused), jax.jit(refused), refused, jax.jit(called_back)])
def test_only_the_sentence_is_left(compiled):
    with pytest.raises(RUNTIME_ERRORS) as error:
        jax.block_until_ready(compiled(jnp.ones(())))
    assert said(error.value) == SENTENCE


def test_what_needs_no_unwrapping_stays_as_it_is():
    assert said(ValueError("a\n\nb")) == "a\n\nb"
    assert said(KeyError()) == "KeyError"
    with pytest.raises(RuntimeError) as error:
        eqx.error_if(jnp.ones(()), True, SENTENCE)
    assert said(error.value) == SENTENCE


def test_memory_that_is_not_there_is_told_with_its_size():
    with pytest.raises(RUNTIME_ERRORS) as error:
        jax.jit(lambda: jnp.zeros(10**15, jnp.float32))()
    assert said(error.value).startswith("out of memory: a compiled program needs 4e+03 TB at once")
