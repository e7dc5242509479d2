"""Every example runs with `--quick`, and its assertions hold. The code in the README and the docs runs."""

import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import echograd as eg

pytestmark = [pytest.mark.slow, pytest.mark.least_effort]

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# Other tests run the blocks of two pages: tests/cli/test_own_data.py and tests/data/test_by_hand.py.
ELSEWHERE = ("own_data.md", "forecasting.md")
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in ELSEWHERE)]
# Its examples measure the error of a gradient and take time to compile: float64 only.
EXTENDING = ROOT / "docs" / "extending.md"
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}", marks=[pytest.mark.float64_only] if page == EXTENDING else [])
    for page in PAGES
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S))
]


# One of them runs as a user runs it; to import JAX takes as long as most of the others.
ALONE = "quickstart"


def asserts(example):
    return re.search(r"^\s*assert ", example.read_text(), re.M)


@pytest.fixture
def _as_users_have_it(monkeypatch, tmp_path):
    """The settings of a fresh process, where examples promote dtypes and ranks. Examples choose their precision."""
    monkeypatch.chdir(tmp_path)
    before = jax.config.jax_enable_x64
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("default")
        jax.config.update("jax_enable_x64", False)
        yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.float64_only  # the examples choose their own precision
@pytest.mark.usefixtures("_as_users_have_it")
@pytest.mark.parametrize("example", [x for x in EXAMPLES if x.stem != ALONE], ids=lambda path: path.stem)
def test_the_assertions_of_an_example_hold(example, monkeypatch, capsys):
    """No example claims a speed, so programs are compiled without optimisation."""
    assert asserts(example), f"{example.name} asserts nothing"
    monkeypatch.setattr(sys, "argv", [str(example), "--quick"])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip(), f"{example.name} prints nothing"


@pytest.mark.float64_only
def test_an_example_runs_in_its_own_process(tmp_path):
    """A failed assertion gives an exit code."""
    example = ROOT / "examples" / f"{ALONE}.py"
    assert asserts(example)
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip()


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
