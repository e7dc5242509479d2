"""The installation: pinned versions, no faulty jaxlib, and a core that needs no extra."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.precision_free

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ("3.11", "3.12", "3.13")


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def applies(requirement, **environment):
    return requirement.marker is None or requirement.marker.evaluate({"extra": "", **environment})


def requirements(python, *extras):
    """Return the requirements of echograd on a version of Python, without echograd itself."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    wanted = [Requirement(line) for line in lines]
    return [r for r in wanted if r.name != "echograd" and applies(r, python_version=python)]


def pins(python):
    """Return the versions in constraints.txt for a version of Python."""
    result = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#") and applies(pin := Requirement(line), python_version=python):
            assert pin.name not in result, f"{pin.name} is pinned twice on Python {python}"
            result[pin.name] = str(pin.specifier).removeprefix("==")
    return result


@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_are_what_the_requirements_allow(python):
    pinned = pins(python)
    for requirement in requirements(python, *EXTRAS):
        version = pinned[normalised(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}, but {version} is pinned"


def test_the_pins_cover_what_the_requirements_bring():
    """Indirect dependencies are pinned too (checked on this Python), so every installation is the same."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    present = {normalised(found.name): found for found in importlib.metadata.distributions()}
    todo = [requirement.name for requirement in requirements(python, *EXTRAS)]
    brought = set()
    while todo:
        name = normalised(todo.pop())
        if name in present and name not in brought:
            brought.add(name)
            below = map(Requirement, present[name].requires or [])
            todo += [requirement.name for requirement in below if applies(requirement)]
    assert {"jaxlib", "ml-dtypes", "pluggy", "pillow"} <= brought
    assert brought <= pins(python).keys()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("version", ["0.10.0", "0.10.1", "0.10.2", "0.11.0"])
def test_a_faulty_jax_cannot_be_installed_beside_echograd(python, version):
    (jax,) = [requirement for requirement in requirements(python) if requirement.name == "jax"]
    assert not jax.specifier.contains(version)


# Parts that are imported on first use, with or without their extra.
LAZY = """
assert callable(eg.data.load)
places = (eg.workbench, "training", "workbench"), (eg.workbench, "report", "plot"), (eg, "plot", "plot")
places = *places, (eg, "SequenceClassifier", "workbench"), (eg, "estimators", "workbench")
for holder, part, extra in places:
    try:
        getattr(holder, part)
    except ModuleNotFoundError as error:
        assert f"echograd[{extra}]" in str(error), error
    else:
        raise AssertionError(part)
try:
    eg.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""


def test_the_core_needs_no_extra():
    """`import echograd` works and prints nothing with only the three run-time dependencies.

    A part that needs an extra is still an attribute, and says on first use which extra to install.
    """
    core = {requirement.name for requirement in requirements(PYTHONS[-1])}
    assert core == {"jax", "equinox", "jaxtyping"}
    extras = {requirement.name for requirement in requirements(PYTHONS[-1], *EXTRAS)}
    absent = sorted(extras - core - {"scipy"})  # jax itself needs scipy
    assert {"optax", "tyro", "rich", "pooch", "matplotlib", "diffrax"} <= set(absent)
    program = f"import sys\nsys.modules.update(dict.fromkeys({absent}))\nimport echograd as eg\n" + LAZY
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
