"""The architecture: imports point down only, and every module class is abstract or final."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import pytest

import echograd

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

PACKAGE = Path(inspect.getfile(echograd)).parent

# From the top down. A part is a sub-package, or a module of the root without its underscore.
LAYERS = (
    {"cli", "report", "bench"},
    {"training", "data", "plot"},
    {"nn", "device"},
    {"audit", "check", "diagnose", "equivalence", "learning", "observables", "solutions", "sweep"},
    {"solve", "equilibrium"},
    {"soundness"},
    {"gradients"},
    {"boundary", "integrators", "nudge", "relaxation"},
    {"systems"},
    {"energy"},
    {"loops"},
    {"checks"},
    {"refusals"},
    {"tree", "root", "bordered", "guard", "hoist", "files", "table", "words"},
)
DEPTH = {part: depth for depth, layer in enumerate(({"__init__", "__main__"}, *LAYERS)) for part in layer}

# Neighbours in one layer do not know each other, but for these.
SIDEWAYS = {
    ("cli", "report"): "the command line writes the report",
    ("cli", "bench"): "the command line runs the benchmarks",
    ("training", "data"): "a training run takes a Dataset",
}


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
    """List the imports in a package that do not point down, or that reach past the face of another part."""
    found = []
    for source in sorted(package.rglob("*.py")):
        path = source.relative_to(package)
        part = _part(path.parts[0])
        if part not in DEPTH:
            found.append(f"{path}: `{part}` has no layer; give it one in tests/contracts/test_layers.py")
            continue
        for line, target in imports(source, package):
            wanted = _part(target[0]) if target else "__init__"
            where = f"{path}:{line}"
            if wanted not in DEPTH:
                if part != "__init__":
                    found.append(f"{where}: `{wanted}` comes from the root, above all layers")
            elif wanted == part:
                continue
            elif DEPTH[wanted] <= DEPTH[part] and (part, wanted) not in SIDEWAYS:
                found.append(f"{where}: {part} imports {wanted}, not below it")
            elif len(path.parts) > 1 and any(name.startswith("_") for name in target[1:]):
                found.append(f"{where}: `{'.'.join(target)}` is private to {wanted}")
    return found


def _part(name: str) -> str:
    name = name.removesuffix(".py")
    return name if name.startswith("__") else name.removeprefix("_")


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
        ("_solve.py", "if True:\n    import echograd.check", "solve imports check, not below it"),
        ("_solve.py", "from ._check import check_gradients", "solve imports check, not below it"),
        ("nudge/_base.py", "from ..boundary import InitialValue", "nudge imports boundary, not below it"),
        ("data/_load.py", "from ..training import fit", "data imports training, not below it"),
        (
            "nn/_hssm.py",
            "from ..gradients._echo import Echo",
            "`gradients._echo.Echo` is private",
        ),
        ("nn/deep/_x.py", "from ...gradients import _echo", "`gradients._echo` is private to gradients"),
        ("nn/_hssm.py", "from echograd import Echo", "`Echo` comes from the root, above all layers"),
        ("nn/_hssm.py", "import echograd", "nn imports __init__, not below it"),
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
        ("nn/_hssm.py", "from .. import _tree\nfrom ..gradients import Echo\nfrom ._units import LinearHRU"),
        ("nn/_hssm.py", "import jax\nfrom echograd.systems import SeparableHamiltonian"),
        ("cli/_train.py", "from ..report import write\nfrom .._solve import solve"),
        ("training/_fit.py", "from ..data import Dataset"),
        ("__init__.py", "from . import nn\nfrom ._solve import solve\nfrom .nudge import Symmetric"),
    ],
)
def test_a_right_import_is_left_alone(tmp_path, where, statement):
    source = tmp_path / "echograd" / where
    source.parent.mkdir(parents=True)
    source.write_text(statement + "\n")
    assert violations(tmp_path / "echograd") == []


def test_module_classes_are_found():
    assert {"SeparableHamiltonian", "Leapfrog", "Echo", "Symmetric", "InitialValue", "HSSM"} <= {
        cls.__name__ for cls in module_classes()
    }


@pytest.mark.parametrize("cls", module_classes(), ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_every_class_is_abstract_or_final(cls):
    """Equinox's pattern, which it no longer enforces. Users derive from Hamiltonians, which are abstract."""
    for parent in cls.__mro__[1:]:
        if parent.__module__.startswith("echograd") and issubclass(parent, eqx.Module):
            assert is_abstract(parent), f"{parent.__name__} is concrete, so it must be final"
