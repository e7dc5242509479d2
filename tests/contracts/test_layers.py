"""The architecture: imports point down the layers, and every module class is abstract or final.

Imports are read from the source, so that those inside functions count too.
"""

import ast
import importlib
import pkgutil
from pathlib import Path

import equinox as eqx
import pytest

import echograd

PACKAGE = Path(echograd.__file__).parent

# From the top down. A module may import from its own package and from lower rows only.
LAYERS = (
    {"cli", "report"},
    {"training", "data", "plot"},
    {"nn", "device"},
    {"_audit", "_check"},
    {"_solve"},
    {"gradients"},
    {"boundary", "integrators", "nudge"},
    {"systems"},
    {"_tree", "_guard"},
)
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}

# The members of these rows make one layer and may use each other, as long as no circle results.
SOCIABLE = {"cli", "report", "training", "data", "plot"}


def source_files(package):
    return sorted(package.rglob("*.py"))


def member(path, package):
    """Return the layer's member that a file belongs to: "nn" for nn/_units.py, "_solve" for _solve.py."""
    first = path.relative_to(package).parts[0]
    return first.removesuffix(".py")


def imported_members(path, package):
    """Yield (line, member of echograd) for every import in a file, relative or not, at any depth."""
    inside = ["echograd", *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            modules = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for module in modules:
            if module[0] == "echograd":
                yield node.lineno, module[1] if len(module) > 1 else "__init__"


def violations(package):
    """Return "file:line imports member" for every import that does not point down."""
    found = []
    for path in source_files(package):
        user = member(path, package)
        if user == "__init__":
            continue  # the public surface gathers all layers
        for line, used in imported_members(path, package):
            if used == user:
                continue
            allowed = user in ROW and used in ROW and ROW[user] < ROW[used]
            allowed |= user in SOCIABLE and used in SOCIABLE and ROW.get(user) == ROW.get(used)
            if not allowed:
                found.append(f"{path.relative_to(package)}:{line} imports {used}")
    return found


def circles(package):
    """Return the members that reach themselves through the imports of others."""
    edges = {}
    for path in source_files(package):
        user = member(path, package)
        if user != "__init__":
            edges.setdefault(user, set()).update(used for _, used in imported_members(path, package))

    def reached(start):
        seen, todo = set(), [used for used in edges.get(start, ()) if used != start]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(edges.get(name, ()))
        return seen

    return sorted(name for name in edges if name in reached(name))


def write(package, files):
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)


def test_every_module_has_a_layer():
    members = {member(path, PACKAGE) for path in source_files(PACKAGE)} - {"__init__"}
    assert members <= set(ROW), "name its layer in LAYERS, if the design has one for it"


def test_imports_point_down():
    assert violations(PACKAGE) == []


def test_no_circles():
    assert circles(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("systems/_base.py", "from ..nudge import Symmetric"),
        ("systems/_base.py", "def f():\n    from .. import nudge"),
        ("systems/_base.py", "import echograd.nudge"),
        ("nudge/_base.py", "from echograd.boundary import InitialValue"),
        ("gradients/_echo.py", "from .._solve import solve"),
        ("gradients/_echo.py", "import echograd"),
        ("_solve.py", "from . import nn"),
        ("data/_load.py", "from ..cli._main import main"),
        ("unheard_of.py", "from .systems import Hamiltonian"),
    ],
)
def test_an_import_that_points_up_is_seen(tmp_path, file, text):
    write(tmp_path, {file: text})
    assert len(violations(tmp_path)) == 1


def test_imports_that_point_down_and_circles_are_told_apart(tmp_path):
    write(tmp_path, {"report/_a.py": "from ..training import b\nfrom ._c import d\nimport jax"})
    write(tmp_path, {"training/_a.py": "from ..plot import c", "plot/_a.py": "from ..nn import d"})
    assert violations(tmp_path) == circles(tmp_path) == []
    write(tmp_path, {"plot/_b.py": "def f():\n    from ..training import c"})
    assert violations(tmp_path) == []
    assert circles(tmp_path) == ["plot", "training"]


def descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


def is_abstract(cls):
    """Abstract by name, by an abstract method, or by an abstract attribute."""
    return (
        cls.__name__.startswith("Abstract")
        or bool(getattr(cls, "__abstractmethods__", ()))
        or bool(getattr(cls, "__abstractvars__", ()))
    )


def is_own(cls):
    return cls.__module__.split(".")[0] == "echograd"


def concrete_parents(classes):
    return [
        (cls.__name__, parent.__name__)
        for cls in classes
        for parent in cls.__mro__[1:]
        if issubclass(parent, eqx.Module) and is_own(parent) and not is_abstract(parent)
    ]


def module_classes():
    for info in pkgutil.walk_packages(echograd.__path__, "echograd."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    own = set(filter(is_own, descendants(eqx.Module)))
    return sorted(own, key=lambda cls: (cls.__module__, cls.__qualname__))


def test_every_module_class_is_abstract_or_final():
    classes = module_classes()
    assert {"Leapfrog", "SeparableHamiltonian"} <= {cls.__name__ for cls in classes}
    # equinox makes a hidden subclass of every class while its __init__ runs; it has its parent's name.
    assert [pair for pair in concrete_parents(classes) if pair[0] != pair[1]] == []


def test_a_concrete_parent_is_seen():
    child = type("Child", (echograd.Leapfrog,), {"__module__": __name__})
    assert ("Child", "Leapfrog") in concrete_parents([child])
