"""Hostile settings for every test: strict promotion of dtypes and ranks, warnings as errors, fixed seeds.

`ECHOGRAD_TEST_X64=0` runs everything in float32 but what is marked `float64_only` or `precision_free`.
"""

import itertools
import os
import zlib

import hypothesis
import jax
import pytest

X64 = os.environ.get("ECHOGRAD_TEST_X64", "1") == "1"

jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs that do not know which lines they come from are traced and compiled faster.
jax.config.update("jax_traceback_in_locations_limit", 0)

hypothesis.settings.register_profile("echograd", derandomize=True, deadline=None)
hypothesis.settings.load_profile("echograd")


def pytest_report_header():
    return f"jax {jax.__version__}, {'float64' if X64 else 'float32'}"


def _once(item):
    """Return whether a test belongs to the float64 leg alone."""
    free = item.get_closest_marker("precision_free") and not item.get_closest_marker("both_precisions")
    return bool(free or item.get_closest_marker("float64_only"))


def pytest_collection_modifyitems(config, items):
    """Begin with slow modules; leave out of the float32 leg what float32 makes meaningless or does not change."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if X64:
        return
    dropped = [item for item in items if _once(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture
def new_key(request):
    """Return a function giving fresh random keys, the same ones in every run of this test."""
    counter = itertools.count()
    root = jax.random.key(zlib.crc32(request.node.nodeid.encode()))
    return lambda: jax.random.fold_in(root, next(counter))


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory():
    """Forget compiled programs after each module, which hold hundreds of megabytes by the end otherwise."""
    yield
    jax.clear_caches()
