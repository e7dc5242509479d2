"""Every example runs with `--quick` and its assertions hold. The code in the README and the docs runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import echograd as eg

pytestmark = [pytest.mark.slow, pytest.mark.least_effort]

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Its examples measure the error of a gradient and take time to compile: float64 only.
EXTENDING = ROOT / "docs" / "extending.md"
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}", marks=[pytest.mark.float64_only] if page == EXTENDING else [])
    for page in PAGES
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S))
]


@pytest.mark.float64_only  # the examples choose their own precision
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_assertions_of_an_example_hold(example, tmp_path):
    """Run it in its own process, without the settings of the tests. A failed assertion gives an exit code.

    No example claims a speed, so programs are compiled without optimisation.
    """
    assert re.search(r"^\s*assert ", example.read_text(), re.M), f"{example.name} asserts nothing"
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(example), "--quick"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip(), f"{example.name} prints nothing"


def test_there_are_examples_and_code_to_read():
    assert len(EXAMPLES) >= 6
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS)
def test_code_on_a_page_runs(block):
    # A block without imports uses `eg`, `jnp` and a state of two coordinates.
    names = {} if "import" in block else {"eg": eg, "jnp": jnp, "q": jnp.ones(2), "p": jnp.zeros(2)}
    exec(compile(block, "page", "exec"), names)
    assert block not in EXTENDING.read_text() or {"report", "gradient"} & names.keys(), "it measures nothing"
    if "report" in names:
        assert names["report"].ok(1e-9), names["report"]
    if "gradient" in names:
        leaves = jax.tree.leaves(names["gradient"])
        assert leaves
        assert all(jnp.all(jnp.isfinite(x)) and jnp.any(x != 0) for x in leaves)
