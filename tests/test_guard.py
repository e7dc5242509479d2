"""The package imports only on a jaxlib without the known miscompilation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from echograd._internal import _guard

pytestmark = pytest.mark.precision_free

ROOT = Path(__file__).parents[1]


def pretend(monkeypatch, version, *, wrong_numbers):
    monkeypatch.setattr("jaxlib.version.__version__", version)
    monkeypatch.setattr("jaxlib.version.__version_info__", tuple(map(int, version.split("."))))
    runs = []
    monkeypatch.setattr(_guard, "reproduces_wrong_numbers", lambda: runs.append(version) or wrong_numbers)
    return runs


def test_this_jaxlib_computes_the_right_numbers():
    assert not _guard.reproduces_wrong_numbers()


def test_without_a_cpu_there_is_nothing_to_reproduce(monkeypatch):
    def no_cpu(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(_guard.jax, "local_devices", no_cpu)
    assert not _guard.reproduces_wrong_numbers.__wrapped__()


def test_reproducer_sees_a_row_read_from_the_wrong_place(monkeypatch):
    """Simulates jaxlib 0.10.2: beyond some row it returns the values of a row 32 further up."""
    jit = _guard.jax.jit
    monkeypatch.setattr(_guard.jax, "jit", lambda f: jit(lambda x: f(x).at[-1].set(f(x)[-33])))
    assert _guard.reproduces_wrong_numbers.__wrapped__()


@pytest.mark.parametrize("version", ["0.10.0", "0.10.1", "0.10.2", "0.11.0"])
def test_known_broken_versions_are_refused_without_running_anything(monkeypatch, version):
    runs = pretend(monkeypatch, version, wrong_numbers=False)
    with pytest.raises(ImportError, match=re.escape(version)) as refusal:
        _guard.check_jaxlib()
    assert runs == []
    assert "wrong numbers" in str(refusal.value)
    assert 'python -m pip install "jax==' in str(refusal.value)


@pytest.mark.parametrize("version", sorted(_guard.KNOWN_GOOD))
def test_known_good_versions_are_not_run(monkeypatch, version):
    runs = pretend(monkeypatch, version, wrong_numbers=True)
    _guard.check_jaxlib()
    assert runs == []


def test_unknown_versions_are_judged_by_their_numbers(monkeypatch):
    runs = pretend(monkeypatch, "0.99.0", wrong_numbers=False)
    _guard.check_jaxlib()
    assert runs == ["0.99.0"]
    pretend(monkeypatch, "0.99.0", wrong_numbers=True)
    with pytest.raises(ImportError, match=r"jaxlib 0\.99\.0"):
        _guard.check_jaxlib()


@pytest.mark.parametrize(("python", "versions"), [((3, 11), ["0.9.2"]), ((3, 13), ["0.12.0.1"])])
def test_remedy_is_what_the_constraints_install(monkeypatch, python, versions):
    pretend(monkeypatch, "0.10.2", wrong_numbers=True)
    monkeypatch.setattr(_guard.sys, "version_info", python)
    with pytest.raises(ImportError) as refusal:
        _guard.check_jaxlib()
    remedy = re.findall(r'"(\w+==[\d.]+)"', str(refusal.value))
    assert [requirement.split("==")[1] for requirement in remedy] == versions
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert set(remedy) <= {line.split(";")[0] for line in constraints}


def test_pinned_jaxlibs_are_known_good():
    """Otherwise every import after `make install` would run the reproducer."""
    pins = re.findall(r"^jaxlib==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pins
    assert set(pins) <= _guard.KNOWN_GOOD


def test_import_is_refused_before_anything_else_is_imported():
    program = """
import sys
import jax, jaxlib.version
jaxlib.version.__version__, jaxlib.version.__version_info__ = "0.10.2", (0, 10, 2)
try:
    import echograd
except ImportError as refusal:
    assert "jaxlib 0.10.2" in str(refusal), refusal
    loaded = [name for name in sys.modules if name.startswith("echograd.")]
    expected = ["echograd._internal", "echograd._internal._guard"]
    sys.exit(0 if loaded == expected else f"imported before the check: {loaded}")
sys.exit("not refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
