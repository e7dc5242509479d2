"""`echograd demo` and `echograd report`: end to end, resuming after Ctrl-C, and refusing foreign folders."""

import dataclasses
import json

import pytest

from echograd import GradientReport, plot
from echograd.workbench.cli import _demo, main
from echograd.workbench.report import _write
from echograd.workbench.training import Run, ecg_recipe, fit
from waves import SMALL, waves

# A run has its own precision: float64 around it or not, it is the same.
pytestmark = [pytest.mark.slow, pytest.mark.precision_free, pytest.mark.least_effort]

CONFIG = dataclasses.replace(SMALL, epochs=2)
CODES = {"done": 0, "failed": 1, "interrupted": 130}


def report_of(error):
    row = {"candidate": "echo", "parameter": "x", "relative_error": error, "cosine": 1.0, "norm_ratio": 1.0}
    return GradientReport([{**row, "reference_norm": 1.0, "taylor_slope": None}])


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """A small set, coarse figures, and no measurements that the tests of the report make."""
    data = waves()
    gradients = report_of(3e-12)
    costs = [plot.CostRow(gradient=g, steps=9, bytes=9, seconds=1.0) for g in ("echo", "backprop")]
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            "echograd.workbench.cli._check",
            "echograd.workbench.cli._demo",
            "echograd.workbench.training._fit",
            "echograd.workbench.training._run",
        ):
            patch.setattr(f"{module}.load", lambda name, **_: data)
        patch.setattr(_write, "check_model", lambda *_: gradients)
        patch.setattr(_write, "model_costs", lambda *_: costs)
        patch.setattr(_write, "oscillator_costs", lambda *_: costs)
        patch.setattr("echograd.plot.png.__kwdefaults__", {"dpi": 40})
        yield


def demonstrate(folder, config=CONFIG):
    return _demo.demonstrate(config, folder, "echograd demo --out x", "Waves, learned by echoes")


def interrupt(now):
    if now.record is not None:
        raise KeyboardInterrupt


@pytest.mark.float64_only  # a run has its own precision, so the other leg would show the same
def test_the_demo_goes_on_after_an_interrupt_to_its_end(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo"
    with monkeypatch.context() as patch:
        patch.setattr(_demo, "fit", lambda *a, progress, **k: fit(*a, progress=interrupt, **k))
        assert demonstrate(folder) == CODES["interrupted"]
    said = capsys.readouterr()
    assert "blocks[0].unit.angle" in said.out
    assert ": exact." in said.out
    assert "Resume with the same command: echograd demo --out x" in said.err
    assert len(Run.open(folder / "run").history()) == 1

    assert demonstrate(folder) == CODES["done"]
    said = capsys.readouterr().out
    assert "was interrupted after 1 epochs" in said
    assert "balanced accuracy" in said
    page = (folder / "report.html").read_text(encoding="utf-8")
    run = Run.open(folder / "run")
    assert f"{run.results['test']['balanced_accuracy']:.3f}" in page
    assert "<h1><bdi>Waves, learned by echoes</bdi></h1>" in page
    assert "echograd demo --out x" in page
    assert (folder / "figures" / "confusion.png").is_file()
    assert run.results["epochs"] == 2


@pytest.fixture
def stubbed(monkeypatch):
    """Leave out what the test above has done: the check of gradients and the page."""
    written = []
    gradients = report_of(0.0)
    monkeypatch.setattr(_demo, "check_model", lambda *_: ("a model", gradients))
    monkeypatch.setattr(_demo.report, "write", lambda run, folder, **_: written.append(run) or folder / "report.html")
    return written


def test_a_second_demo_keeps_the_model_and_says_so(tmp_path, stubbed, capsys, monkeypatch):
    assert demonstrate(tmp_path / "demo") == CODES["done"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo" / "run").iterdir()}
    capsys.readouterr()
    monkeypatch.setattr(_demo, "fit", None)
    assert demonstrate(tmp_path / "demo") == CODES["done"]
    assert "holds a finished demo. Its model is kept" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo" / "run").iterdir()} == before
    assert len(stubbed) == 2
    with pytest.raises(ValueError, match="other settings"):
        demonstrate(tmp_path / "demo", dataclasses.replace(CONFIG, seed=1))
    for text in ("[]", "{", "", "[" * 100_000):
        (tmp_path / "demo" / "demo.json").write_text(text)
        with pytest.raises(ValueError, match="other settings"):
            demonstrate(tmp_path / "demo")


def test_a_wrong_gradient_fails_the_demo(tmp_path, stubbed, monkeypatch, capsys):
    gradients = report_of(0.5)
    monkeypatch.setattr(_demo, "check_model", lambda *_: ("a model", gradients))
    assert demonstrate(tmp_path / "demo") == CODES["failed"]
    assert "NOT EXACT" in capsys.readouterr().out


@pytest.mark.parametrize("made", ["file", "folder"])
def test_what_is_not_a_demo_is_left_alone(tmp_path, made, stubbed, capsys):
    place = tmp_path / "thesis"
    if made == "folder":
        place.mkdir()
    precious = place / "chapter.txt" if made == "folder" else place
    precious.write_text("words")
    assert main(["demo", "--out", str(place)]) == CODES["failed"]
    why = "is a file" if made == "file" else "was not made by `echograd demo`"
    said = capsys.readouterr().err
    assert why in said
    assert "another --out" in said
    assert precious.read_text() == "words"
    assert stubbed == []
    assert [path.name for path in tmp_path.rglob("*.json")] == []


def test_the_command_hands_on_its_options(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(_demo, "demonstrate", lambda *arguments: seen.append(arguments) or 0)
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    assert main(["demo", "--quick", "--out", "here"]) == 0
    (full, folder, command, title), (quick, other, long, _) = seen[:2]
    assert (full, str(folder), command) == (ecg_recipe(), "demo", "echograd demo")
    assert (str(other), long) == ("here", "echograd demo --quick --out here")
    assert main(["demo", "--out=-my demo"]) == 0  # as it can be typed again
    assert seen[-1][2] == "echograd demo --out './-my demo'"
    assert quick.epochs == 1
    assert quick.network.blocks == full.network.blocks == 2
    assert full.gradient == "echo"
    assert title == "Heart rhythms, learned by echoes"


def test_an_empty_folder_is_taken(tmp_path, stubbed):
    (tmp_path / "demo").mkdir()
    assert demonstrate(tmp_path / "demo") == CODES["done"]
    assert json.loads((tmp_path / "demo" / "demo.json").read_text())["config"] == CONFIG.to_dict()


def test_report_tells_where_the_page_is(tmp_path, monkeypatch, capsys):
    seen = {}

    def write(run, out, *, title, say):
        seen.update(run=run, out=out, title=title)
        say("measuring")
        return tmp_path / "page" / "report.html"

    monkeypatch.setattr("echograd.workbench.report.write", write)
    monkeypatch.setattr("echograd.workbench.cli._report.open_run", lambda folder, data: folder)
    assert main(["report", "runs/a", "--out", "page", "--title", "Mine"]) == 0
    said = capsys.readouterr().out
    assert "measuring …" in said
    assert f"{tmp_path / 'page' / 'report.html'}" in said.replace("\n", "")
    assert (str(seen["run"]), str(seen["out"]), seen["title"]) == ("runs/a", "page", "Mine")
    monkeypatch.setattr("echograd.workbench.report.compare", write)
    assert main(["report", "runs/a", "runs/b", "--title", "Both"]) == 0
    assert (list(map(str, seen["run"])), str(seen["out"])) == (["runs/a", "runs/b"], "comparison.html")
    monkeypatch.undo()
    assert main(["report"]) == CODES["failed"]
    assert "name a run" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == CODES["failed"]
    assert "holds no training run" in capsys.readouterr().err
