"""Strict settings for every test: no promotion of dtypes and ranks, warnings as errors, fixed seeds.

`ECHOGRAD_TEST_X64=0` runs everything in float32, except tests marked `float64_only` or `precision_free`. `--exhaustive`
also runs tests marked `exhaustive`.
"""

import gc
import itertools
import os
import zlib

import hypothesis
import jax
import pytest

X64 = os.environ.get("ECHOGRAD_TEST_X64", "1") == "1"

# Several processes share the cores, so each compiles a program in one piece. XLA reads this before its first program.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_parallel_codegen_split_count=1"

jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing and compiling is faster without line numbers in programs.
jax.config.update("jax_traceback_in_locations_limit", 0)

hypothesis.settings.register_profile("echograd", derandomize=True, deadline=None)
hypothesis.settings.load_profile("echograd")


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="also run tests marked `exhaustive`")


def pytest_report_header():
    return f"jax {jax.__version__}, {'float64' if X64 else 'float32'}"


def _once(item):
    """Return whether a test belongs to the float64 leg alone."""
    free = item.get_closest_marker("precision_free") and not item.get_closest_marker("both_precisions")
    return bool(free or item.get_closest_marker("float64_only"))


def pytest_collection_modifyitems(config, items):
    """Start with slow modules. Deselect what is `exhaustive`, and in the float32 leg what belongs to float64 alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    every = config.getoption("exhaustive")
    dropped = {item for item in items if item.get_closest_marker("exhaustive") and not every}
    dropped |= {item for item in items if not X64 and _once(item)}
    if dropped:
        config.hook.pytest_deselected(items=list(dropped))
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture
def new_key(request):
    """Return a function that gives new random keys, the same ones in every run of this test."""
    counter = itertools.count()
    root = jax.random.key(zlib.crc32(request.node.nodeid.encode()))
    return lambda: jax.random.fold_in(root, next(counter))


def pytest_collection_finish():
    """Freeze what exists now, so that garbage collection looks only at objects that tests make."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # tracing makes many objects that live long


@pytest.fixture(autouse=True, scope="module")
def _programs(request):
    """Free compiled programs after each module. Otherwise they fill hundreds of megabytes.

    Modules marked `least_effort` are compiled without LLVM's optimisations in the float64 leg. That changes the speed
    of a program and the last bits of its results, not the algorithm or its memory. Mark every module whose claims
    are not about bits or speed. The float32 leg optimises all.
    """
    jax.config.update("jax_disable_most_optimizations", X64 and bool(request.node.get_closest_marker("least_effort")))
    yield
    jax.clear_caches()
