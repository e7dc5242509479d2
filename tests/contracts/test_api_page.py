"""docs/api.md lists every public name once, with the first line of its docstring."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import echograd

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"


@pytest.fixture
def script():
    """The generator, imported anew for every test."""
    spec = importlib.util.spec_from_file_location("write_api", ROOT / "scripts" / "write_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exported(module):
    """Return the public names of an imported package. The generator reads the source instead."""
    return {name: x for name, x in vars(module).items() if name[0] != "_" and not inspect.ismodule(x)}


def listed():
    return re.findall(r"^- \[`eg\.([\w.]+)`\]", PAGE.read_text(), re.MULTILINE)


def test_every_public_name_is_on_the_page_once():
    names, top = listed(), exported(echograd)
    found = pkgutil.walk_packages(echograd.__path__, "echograd.")
    parts = [part.name.removeprefix("echograd.") for part in found if part.ispkg and "._" not in part.name]
    assert {"systems", "nn", "device", "workbench.data", "workbench.training", "plot", "gradients"} <= set(parts)
    missing = [name for name in top if name not in names]
    for part in parts:
        for name, x in exported(importlib.import_module(f"echograd.{part}")).items():
            # Names of the top level are listed only there.
            if not (name in top and top[name] is x) and f"{part}.{name}" not in names:
                missing.append(f"{part}.{name}")
    assert missing == []
    assert len(names) == len(set(names))


def test_the_page_is_not_stale(script):
    assert PAGE.read_text() == script.page(), "run python scripts/write_api.py"


def test_its_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text())
    assert len(targets) > 100
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []


def test_the_readme_links_to_it():
    assert "](docs/api.md)" in (ROOT / "README.md").read_text()


def test_a_name_in_no_group_is_refused(script):
    script.GROUPS = [group._replace(names=group.names.replace("solve Trajectory", "solve")) for group in script.GROUPS]
    with pytest.raises(ValueError, match=r"^Trajectory: in no group"):
        script.page()


def test_a_group_of_nothing_is_refused(script):
    script.GROUPS = (*script.GROUPS, script.Group("Magic", "", "Oracle"))
    with pytest.raises(ValueError, match="Oracle is in a group"):
        script.page()


def test_a_name_without_docstring_is_refused(script):
    script.ALIASES = {}
    with pytest.raises(ValueError, match="has no docstring"):
        script.page()
