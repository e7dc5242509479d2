"""The repository as a whole: no paths of one machine, one version number, documented public names, CI."""

import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import echograd

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Written so that this file does not match itself.
REGISTRY = re.compile(r"https?://[^\s)\"']*(?:/simp" + r"le\b|/pyp" + r"i\b|index-u" + r"rl|pythonhost" + r"ed)")
MACHINE_PATH = re.compile(r"/(?:" + r"work|farm|tmp|root|home|Users)/[A-Za-z0-9_.]")


def tracked_texts():
    """Yield (name, text) of every text file that git tracks, or of the code if there is no git."""
    if (ROOT / ".git").exists():
        listing = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
        names = [name for name in listing.split("\0") if name]
    else:
        names = [str(path.relative_to(ROOT)) for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    for name in names:
        path = ROOT / name
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                yield name, content.decode()


def matches(pattern):
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def public_modules():
    """Return echograd and its public subpackages."""
    names = [
        info.name
        for info in pkgutil.walk_packages(echograd.__path__, "echograd.")
        if not any(part.startswith("_") for part in info.name.split("."))
    ]
    return ["echograd", *names]


def public_objects(module):
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isroutine(value))
    }


def test_no_registry_addresses():
    assert matches(REGISTRY) == []


def test_no_paths_of_one_machine():
    assert matches(MACHINE_PATH) == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (REGISTRY, "https://example.org/simp" + "le/jax"),
        (REGISTRY, "http://localhost:8080/pyp" + "i"),
        (MACHINE_PATH, "open('/ro" + "ot/data.npz')"),
        (MACHINE_PATH, "see /ho" + "me/someone/x"),
    ],
)
def test_such_a_line_is_seen(pattern, text):
    assert pattern.search(text)


def test_constraints_are_plain_pins():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pin = re.compile(r"[a-z0-9-]+==[\w.]+(; python_version (<|>=) '3\.\d+'( and python_version < '3\.\d+')?)?")
    assert lines
    assert [line for line in lines if not pin.fullmatch(line)] == []


def test_constraints_pin_every_direct_dependency():
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    requirements = PROJECT["dependencies"] + [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
    names = {re.match(r"[A-Za-z0-9_-]+", requirement).group().lower() for requirement in requirements}
    assert names - {"echograd"} <= pinned


def test_the_version_stands_in_one_place():
    version = PROJECT["version"]
    assert importlib.metadata.version("echograd") == version
    written = re.compile(r"\bversion(__)?\s*[=:]\s*[\"']" + re.escape(version))
    assert [hit.split(":")[0] for hit in matches(written)] == ["pyproject.toml"]


@pytest.mark.parametrize("name", public_modules())
def test_public_names_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    undocumented = [key for key, value in public_objects(module).items() if not (value.__doc__ or "").strip()]
    assert undocumented == []


def test_public_names_of_the_interface_are_there():
    names = set(public_objects(echograd))
    assert {
        "solve",
        "Trajectory",
        "InitialValue",
        "Leapfrog",
        "Yoshida",
        "Echo",
        "Backprop",
        "Symmetric",
    } <= names


def test_ci_runs_the_tests_on_the_newest_and_the_oldest_python():
    script = ROOT / ".ci" / "run"
    assert re.findall(r"^\s*make (.*)$", script.read_text(), re.MULTILINE) == ["test", "test-oldest"]
    assert script.stat().st_mode & 0o111
    oldest = re.search(r"^OLDEST_TESTS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    for name in re.findall(r"tests/\S+", oldest):
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not test or f"def {test}(" in (ROOT / path).read_text(), name


def test_exhaustive_combinations_run_in_test_all():
    rule = re.search(r"^test-all:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert "--exhaustive" in rule
    assert "make test-all" in (ROOT / "CONTRIBUTING.md").read_text()
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.exhaustive" in path.read_text()]
    assert marked


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_names_the_commands(command):
    assert command in (ROOT / "README.md").read_text()
