"""The benchmark suite: contests of processes, stored files, the page, and every row at tiny sizes."""

import dataclasses
import json
import shutil
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

import benchmarks as bench
from benchmarks import Effort, __main__ as command, _results, _suite, _tables, _worker
from benchmarks._contest import contest

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]

ROOT = Path(__file__).parents[2]
STORED = ROOT / "benchmarks" / "results"


@pytest.fixture
def toys(monkeypatch):
    """Add the row of toys to the suite."""
    monkeypatch.setitem(bench.ROWS, "toy", toy.ROW)


@pytest.mark.float64_only
def test_contenders_may_fail_in_every_way():
    said = []
    results = contest(toy.ROW, toy.cases(True, {})[1], Effort(repeats=3, limit_mb=1e3, patience=12.0), said.append)
    found = {result["contender"]: result for result in results}
    assert list(found) == list(toy.CONTENDERS)
    for name in ("base", "off"):
        assert len(found[name]["all_s"]) == 3
        assert found[name]["run_s"] == np.median(found[name]["all_s"]) > 0.002
        assert found[name]["recompiled"] == 0
        assert 20 < found[name]["resident_mb"] < 2000
    assert found["base"]["ratio"] == 1
    assert found["off"]["ratio"] == found["off"]["run_s"] / found["base"]["run_s"]
    assert found["off"]["error"] == pytest.approx(1e-6)
    assert "error" not in found["base"]
    assert found["talks and fails"]["failed"] == "ArithmeticError: two and two are five"
    assert "probably out of memory" in found["dies"]["failed"]
    assert "longer than 12 s" in found["hangs"]["failed"]
    assert "more than the limit of 1,000" in found["greedy"]["failed"]
    assert "run_s" not in found["greedy"]
    assert len(said) == 3  # who failed before the turns began


def pretend(calls):
    """Return a contest that takes no time."""

    def contest(row, case, effort, say):
        calls.append(case.name)
        if len(calls) == 2 and calls[0] == "size 1":
            raise KeyboardInterrupt
        return [{"contender": name, "run_s": 1.0, "ratio": 1.0} for name in case.contenders]

    return contest


@pytest.mark.usefixtures("toys")
def test_a_run_that_was_broken_off_goes_on(tmp_path, monkeypatch):
    calls, lines = [], []
    monkeypatch.setattr(_suite, "contest", pretend(calls))
    monkeypatch.setattr(_suite, "measure_untimed", lambda row, case, effort: toy.count(case))
    with pytest.raises(KeyboardInterrupt):
        bench.measure(["toy"], tmp_path)
    (stored,) = _results.read(tmp_path / "toy.json")
    assert stored["name"] == "size 1"
    assert {r["contender"]: r.get("counted") for r in stored["results"]} == {"base": None, "off": 1}
    assert {"jax", "echograd", "cores", "processor", "python"} <= stored["machine"].keys()
    (file,) = bench.measure(["toy"], tmp_path, say=lines.append)
    assert lines[0] == "toy: size 1: kept"
    assert calls == ["size 1", "size 2", "size 2"]
    assert [case["name"] for case in _results.read(file)] == ["size 1", "size 2"]
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]
    # Stored cases are measured again for a new contender, or with fresh=True.
    more = [dataclasses.replace(case, contenders=("base", "new")) for case in toy.cases(True, {})]
    monkeypatch.setitem(bench.ROWS, "toy", dataclasses.replace(toy.ROW, cases=lambda quick, peers: more))
    bench.measure(["toy"], tmp_path)
    assert calls[3:] == ["size 1", "size 2"]
    bench.measure(["toy"], tmp_path, only="2")
    bench.measure(["toy"], tmp_path, only="2", fresh=True)
    assert calls[5:] == ["size 2"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"rows": ["nothing"]}, "no row 'nothing'"),
        ({"rows": ["simulation"], "only": "perpetuum"}, "no case"),
        ({"peers": [Path(__file__).parent]}, "models/LinHRU.py"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        bench.measure(out=tmp_path / "results", **arguments)
    assert not any(tmp_path.iterdir())


def test_the_command_makes_no_folders_for_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["simulation", "--only", "perpetuum"]) == 1
    assert "no case of simulation has only='perpetuum' in its name" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("machine", ["", "h100"])
def test_the_page_is_that_of_the_stored_results(tmp_path, capsys, machine):
    """Of the results in the repository, and nothing is run."""
    results, docs = STORED / machine, ROOT / "docs" / machine
    assert command.main(["--page-only", "--out", str(results), "--docs", str(tmp_path)]) == 0
    assert "benchmarks.md" in capsys.readouterr().out
    text = (tmp_path / "benchmarks.md").read_text()
    assert text == (docs / "benchmarks.md").read_text(), "run `make bench BENCH_ARGS=--page-only`"
    for file in results.glob("*.json"):
        name = file.stem
        assert bench.ROWS[name].title in text
        assert f"images/bench_{name}.png" in text
        assert (tmp_path / "images" / f"bench_{name}.png").read_bytes()[1:4] == b"PNG"
        assert (docs / "images" / f"bench_{name}.png").is_file()


def grown(axis, size, power):
    """Return a stored case of growth with known exponents."""
    results = [
        {"contender": "echo", "run_s": 1e-3 * size**power, "ratio": 1.0, "temporary_mb": 2.0, "passes": 2.0},
        {"contender": "forward", "failed": "MemoryError: | no", "agreement_failed": "counted | nothing"},
    ]
    machine = {"cores": 2, "processor": "x", "python": "3", "jax": "0"}
    sizes = {"axis": axis, "size": size}
    return {
        "name": f"{axis} = {size}", "sizes": sizes, "base": "echo", "dtype": "float64", "machine": machine,
        "results": results,
    }  # fmt: skip


@pytest.mark.fast
def test_exponents_are_fitted(tmp_path):
    cases = [grown("N", n, 1.5) for n in (100, 10, 1000)] + [grown("blocks", 2, 0)]
    _results.write(tmp_path / "growth.json", "growth", cases)
    text = bench.write_page(tmp_path, tmp_path).read_text()
    assert "| N | 10 … 1,000 | echo | 1.50 | 0.00 | 0.00 | 2 |" in text
    assert "| blocks | 2 … 2 | echo | – | – | – | 2 |" in text
    assert "MemoryError: \\| no" in text
    assert (tmp_path / "images" / "bench_growth.png").is_file()


def test_two_point_problems_are_tabulated(tmp_path):
    def case(steps, n):
        results = [
            {"contender": "path", "run_s": 1e-6 * steps * n**3, "ratio": 1.0, "temporary_mb": 1.0},
            {"contender": "Glep()", "run_s": 2e-6 * steps * n**3, "ratio": 2.0, "temporary_mb": 2.0, "error": 1e-15},
            {"contender": "scipy solve_bvp", "failed": "took longer than 3 s"},
        ]
        sizes = {"condition": "fixed ends", "steps": steps, "n": n}
        return {**grown("", 1, 0), "name": f"N = {steps}, n = {n}", "sizes": sizes, "results": results}

    cases = [case(100, 4), case(1000, 4), case(1000, 8)]
    _results.write(tmp_path / "boundary.json", "boundary", cases)
    text = bench.write_page(tmp_path, tmp_path).read_text()
    assert "| N | 100 … 1,000 | n = 4 | path | 1.00 | 0.00 |" in text
    assert "| n | 4 … 8 | N = 1,000 | Glep() | 3.00 | 0.00 |" in text
    assert "took longer than 3 s" in text
    assert "1e-15" in text


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text[: len(text) // 2], "does not hold results"),
        (lambda text: text.replace('"format": 1', '"format": 99'), "format 99"),
        (lambda text: text.replace('"machine"', '"engine"'), "a case without machine"),
        (lambda text: text.replace('"contender"', '"name"'), "a result without its contender"),
        (lambda text: "[]", "does not hold results"),
        (lambda text: text.replace('"moved_mb"', '"mb"'), "lacks 'moved_mb', which the page needs"),
    ],
)
def test_a_broken_file_is_named(tmp_path, capsys, damage, complaint):
    shutil.copy(STORED / "unit.json", tmp_path)
    file = tmp_path / "unit.json"
    file.write_text(damage(file.read_text()))
    assert command.main(["--page-only", "--out", str(tmp_path), "--docs", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert complaint in said
    assert str(file) in said
    assert "measure again" in said


def test_no_results_make_no_page(tmp_path, capsys):
    assert command.main(["--page-only", "--out", str(tmp_path), "--docs", str(tmp_path)]) == 1
    assert "Run `make bench` first" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure", interrupted)
    assert command.main(["unit", "--fresh", "--repeats", "3"]) == 130
    assert "Resume with: python -m benchmarks unit --repeats 3" in capsys.readouterr().err


@pytest.fixture
def as_in_a_worker():
    """Undo what a worker sets for its whole process, and be as lenient as it is."""
    before = jax.config.jax_enable_x64
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
    jax.config.update("jax_enable_x64", before)


# Contenders enough to see that a row works: what they have in common is not compiled twice.
ENOUGH = {
    "simulation": ("echo", "diffrax RecursiveCheckpointAdjoint"),
    "sequence": ("echo",),
    "damped": ("damped",),
    "unit": ("copy", "echo"),
    "boundary": ("Glep()", "scipy solve_bvp"),
    "growth": ("echo",),
    "friction": ("Rewind(bits)",),
}


@pytest.mark.float64_only
@pytest.mark.usefixtures("as_in_a_worker")
@pytest.mark.parametrize("name", ENOUGH)
def test_every_row_runs_in_small(name, tmp_path, monkeypatch):
    rests = []
    monkeypatch.setattr(_worker, "rest", lambda: rests.append(name))
    row = bench.ROWS[name]
    case = row.cases(True, {})[0]
    for contender in ENOUGH[name]:
        task = {
            "module": row.build.__module__, "case": dataclasses.asdict(case), "contender": contender,
            "limit_mb": 1e3, "results": str(tmp_path / "found.npz"),
        }  # fmt: skip
        first, second = _worker.answers(task, [""])
        assert json.loads(json.dumps({**first, **second}))["run_s"] > 0
        assert second["recompiled"] == 0
        if contender not in ("copy", "scipy solve_bvp"):
            assert first["compile_s"] > 0
            assert first["temporary_mb"] > 0
        assert rests.pop() == name
        assert not rests
        if case.reference:
            assert (tmp_path / "found.npz").exists() == (contender != "copy")


def test_a_turn_ends_when_the_process_rests():
    """Or the contender after one that frees gigabytes would be charged for it."""

    def linger():
        while time.process_time() < end:
            pass

    end = time.process_time() + 0.3
    thread = threading.Thread(target=linger)
    thread.start()
    _worker.rest()
    assert not thread.is_alive()
    begun = time.monotonic()
    end = time.process_time() + 60
    thread = threading.Thread(target=linger, daemon=True)
    thread.start()
    _worker.rest(0.1)  # it is not waited for for ever
    assert thread.is_alive()
    assert time.monotonic() - begun < 30
    end = 0


@pytest.mark.float64_only
@pytest.mark.usefixtures("as_in_a_worker")
def test_errors_and_passes_are_measured_untimed(monkeypatch):
    row = bench.ROWS["simulation"]
    monkeypatch.setitem(sys.modules, "diffrax", None)
    other = "diffrax BacksolveAdjoint"
    found = row.untimed(dataclasses.replace(row.cases(True, {})[0], contenders=("forward", "echo", other)))
    assert found["echo"]["error"] < 1e-12
    assert "diffrax" in found[other]["agreement_failed"]
    row = bench.ROWS["growth"]
    steps, _, parameters, blocks = row.cases(True, {})
    for case in (steps, parameters):
        counted = row.untimed(dataclasses.replace(case, contenders=("forward", "echo")))
        assert {name: figures["passes"] for name, figures in counted.items()} == {"forward": 1.0, "echo": 2.0}
    passes = row.untimed(blocks)
    assert 2 < passes["backprop"]["passes"] < passes["echo"]["passes"] < 5


def test_operations_are_counted_as_often_as_loops_run():
    from benchmarks._growth import _operations

    def loop(x, times):
        return jax.lax.scan(lambda c, _: (c @ x + 1.0, None), x, None, length=times)[0]

    x = np.ones((4, 4), np.float32)
    count = [_operations(jax.make_jaxpr(lambda x, n=n: loop(x, n))(x).jaxpr) for n in (1, 10)]
    assert count == [2 * 4**3 + 4**2, 10 * (2 * 4**3 + 4**2)]


@pytest.mark.fast
def test_sizes_and_times_are_readable():
    assert [_tables.seconds(x) for x in (2.0, 0.0125, 3e-6, None)] == ["2 s", "12.5 ms", "3 µs", "–"]
    assert [_tables.memory(x) for x in (12345.0, 1.5, 0.002)] == ["12.3 GB", "1.5 MB", "2 kB"]
    assert [_tables.times(x) for x in (28612.3, 1.234, None)] == ["28,612 ×", "1.23 ×", "–"]
    assert _tables.exponent([1, 10, 100], [None, 5.0, 5.0]) == pytest.approx(0, abs=1e-9)
    assert _tables.exponent([3], [5.0]) is None


def test_clones_may_be_given_together_or_one_by_one(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(command, "measure", lambda *_, peers, **__: seen.append(peers))
    monkeypatch.setattr(command, "write_page", lambda *_: tmp_path)
    folders = ["--out", str(tmp_path), "--docs", str(tmp_path)]
    monkeypatch.chdir(tmp_path)
    for clone, file in (("a", "LinHRU.py"), ("b", "LinOSS.py")):
        (tmp_path / clone / "models").mkdir(parents=True)
        (tmp_path / clone / "models" / file).touch()
    for peers in (["--peer", "a", "b"], ["--peer", "a", "--peer", "b"]):
        assert command.main(["sequence", *folders, *peers]) == 0
    assert seen == [(Path("a"), Path("b"))] * 2


@pytest.mark.parametrize("argv", [["unit", "--quick", "--seconds", "nan"], ["unit", "--quick", "--only", "nothing"]])
def test_wrong_options_are_told_in_one_short_message(argv, capsys):
    assert command.main(argv) in (1, 2)
    said = capsys.readouterr().err
    assert 0 < len(said) < 900
    assert "Traceback" not in said


@pytest.mark.parametrize("argv", [["unit", "--quick", "--out"], ["--page-only", "--docs"]])
def test_what_stands_in_the_way_of_a_folder_is_told_before_anything_is_measured(argv, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    monkeypatch.setattr(command, "measure", lambda *_, **__: pytest.fail("it has begun"))
    for name, what in {"file": "file is a file", "dangling": "dangling is a broken link"}.items():
        assert command.main([*argv, str(tmp_path / name)]) == 1
        said = capsys.readouterr()
        assert what in said.err
        assert "(--out" in said.err
        assert said.err.count("\n") == 1
        assert not said.out
