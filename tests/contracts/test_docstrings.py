"""Every public name of the library has an example in its docstring, and the example runs."""

import importlib
import inspect
import re
import textwrap

import jax
import pytest
from test_api_page import PAGE, listed

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort, pytest.mark.slow]

# The page shows what the examples assume.
SCENE = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
NAMES = [name for name in listed() if not name.startswith("workbench") and name != "integrators.State"]


def examples(name):
    """Return the examples of a public name, and the name that it refers to for an example."""
    module, _, last = f"echograd.{name}".rpartition(".")
    documented = inspect.getdoc(getattr(importlib.import_module(module), last)) or ""
    if pointer := re.search(r"^Example: see `([\w.]+)`", documented, re.MULTILINE):
        return [], pointer[1]
    return [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", documented, re.DOTALL)], None


@pytest.fixture(scope="module")
def scene():
    names = {}
    exec(compile(SCENE, PAGE.name, "exec"), names)
    return names


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name, scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As users have them: examples promote dtypes and ranks.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        blocks, other = examples(name)
        assert blocks or examples(other)[0], f"{name} has no example"
        for block in blocks:
            exec(compile(block, name, "exec"), dict(scene))
