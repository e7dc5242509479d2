"""The architecture: imports point down, docs/architecture.md shows the same layers, classes are abstract or final."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import pytest

import echograd

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

PACKAGE = Path(inspect.getfile(echograd)).parent
PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")

# From the top down. A part is a package, or a module at the top of the package.
LAYERS = (
    ("data", "estimators", "training"),
    ("workbench",),
    ("plot",),
    ("measure", "device", "_solutions", "_learning", "_observables"),
    ("nn",),
    ("_solve",),
    ("gradients",),
    ("two_point", "statics"),
    ("problem",),
    ("boundary", "integrators", "nudge"),
    ("friction",),
    ("systems",),
    ("_loops",),
    ("_internal",),
)
DEPTH = {part: depth for depth, layer in enumerate((("__init__",), *LAYERS)) for part in layer}

# The workbench is an application: it imports public names, and a few tools for files, tables and checks.
TOOLS = {"_checks", "_files", "_format", "_errors", "_table", "_tree"}


def imports(source: Path, package: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield line and target of all imports of the package in a file, inside functions too.

    A target is a path below the root: `from ..gradients import Echo` gives `("gradients", "Echo")`.
    """
    here = source.relative_to(package).parent.parts
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root, *path = alias.name.split(".")
                if root == package.name:
                    yield node.lineno, tuple(path)
        elif isinstance(node, ast.ImportFrom):
            root, *path = (node.module or "").split(".")
            if node.level:
                base = (*here[: len(here) - node.level + 1], *filter(None, (root, *path)))
            elif root == package.name:
                base = tuple(path)
            else:
                continue
            for alias in node.names:
                yield node.lineno, (*base, alias.name)


def violations(package: Path) -> list[str]:
    """List the imports in a package that do not point down, and private imports by the workbench."""
    found = []
    for source in sorted(package.rglob("*.py")):
        path = source.relative_to(package)
        part = path.parts[0].removesuffix(".py")
        if part not in DEPTH:
            found.append(f"{path}: `{part}` has no layer; give it one in tests/contracts/test_layers.py")
            continue
        for line, target in imports(source, package):
            wanted = target[0] if target and target[0] in DEPTH else "__init__"
            where = f"{path}:{line}"
            if part in ("__init__", wanted):
                continue
            if part == "workbench":
                private = [name for name in target if name.startswith("_")]
                if private and not (target[0] == "_internal" and TOOLS & set(target)):
                    found.append(f"{where}: `{'.'.join(target)}` is private to the library")
            elif wanted == "__init__":
                found.append(f"{where}: {part} imports `{'.'.join(target)}` from the root, above all layers")
            elif DEPTH[wanted] <= DEPTH[part]:
                found.append(f"{where}: {part} imports {wanted}, not below it")
    return found


def module_classes() -> list[type[eqx.Module]]:
    """Return every Equinox module class that a module of echograd defines."""
    names = [
        found.name
        for found in pkgutil.walk_packages(echograd.__path__, "echograd.")
        if not found.name.endswith("__main__")
    ]
    return sorted(
        {
            member
            for name in names
            for member in vars(importlib.import_module(name)).values()
            if inspect.isclass(member) and issubclass(member, eqx.Module) and member.__module__ == name
        },
        key=lambda cls: (cls.__module__, cls.__qualname__),
    )


def is_abstract(cls: type) -> bool:
    return cls.__name__.startswith("Abstract") or inspect.isabstract(cls)


def test_imports_point_down():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("where", "statement", "complaint"),
    [
        ("systems/_zoo.py", "from ..gradients import Echo", "systems imports gradients, not below it"),
        ("systems/_zoo.py", "def f():\n    from .. import nn", "systems imports nn, not below it"),
        ("_solve.py", "if True:\n    import echograd.measure", "_solve imports measure, not below it"),
        ("_solve.py", "from .measure._check import check_gradients", "_solve imports measure, not below it"),
        ("nudge/_base.py", "from ..boundary import InitialValue", "nudge imports boundary, not below it"),
        ("nn/_hssm.py", "from echograd import Echo", "nn imports `Echo` from the root"),
        ("nn/_hssm.py", "import echograd", "nn imports `` from the root"),
        ("workbench/data/_load.py", "from ..._solve import solve", "`_solve.solve` is private to the library"),
        ("workbench/data/_load.py", "from echograd.nn._hssm import HSSM", "`nn._hssm.HSSM` is private"),
        ("measure/_audit.py", "from ..workbench.data import load", "measure imports workbench, not below it"),
        ("extras/__init__.py", "", "`extras` has no layer"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path, where, statement, complaint):
    source = tmp_path / "echograd" / where
    source.parent.mkdir(parents=True)
    source.write_text(statement + "\n")
    (violation,) = violations(tmp_path / "echograd")
    assert complaint in violation


@pytest.mark.parametrize(
    ("where", "statement"),
    [
        ("nn/_hssm.py", "from .._internal import _tree\nfrom ..gradients import Echo\nfrom ._units import LinearHRU"),
        ("nn/_hssm.py", "import jax\nfrom echograd.systems import SeparableHamiltonian"),
        ("nn/_hssm.py", "from ..gradients._echo import Echo"),
        ("workbench/cli/_train.py", "from ..report import write\nfrom echograd import solve"),
        ("workbench/training/_fit.py", "from ..data._store import folder\nfrom echograd._internal import _tree"),
        ("__init__.py", "from . import nn\nfrom ._solve import solve\nfrom .nudge import Symmetric"),
    ],
)
def test_a_right_import_is_left_alone(tmp_path, where, statement):
    source = tmp_path / "echograd" / where
    source.parent.mkdir(parents=True)
    source.write_text(statement + "\n")
    assert violations(tmp_path / "echograd") == []


def test_the_page_draws_the_layers():
    picture = re.search(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
    assert tuple(tuple(line.split("|")[0].split()) for line in picture.splitlines()) == LAYERS


def test_the_page_has_a_row_for_every_part():
    parts = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"} - {"__init__"}
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(parts - {"__pycache__"}) == sorted(part for layer in LAYERS for part in layer)


def test_the_files_on_the_page_exist():
    files = re.findall(r"`([\w/]+\.py)`", PAGE)
    assert len(files) > 20
    root = PACKAGE.parents[1]
    assert [file for file in files if not any((place / file).exists() for place in (PACKAGE, root))] == []


def test_module_classes_are_found():
    assert {"SeparableHamiltonian", "Leapfrog", "Echo", "Symmetric", "InitialValue", "HSSM"} <= {
        cls.__name__ for cls in module_classes()
    }


@pytest.mark.parametrize("cls", module_classes(), ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_every_class_is_abstract_or_final(cls):
    """Equinox recommends this pattern and no longer enforces it. Users derive from Hamiltonians, which are abstract."""
    for parent in cls.__mro__[1:]:
        if parent.__module__.startswith("echograd") and issubclass(parent, eqx.Module):
            assert is_abstract(parent), f"{parent.__name__} is concrete, so it must be final"
