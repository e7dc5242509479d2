"""Own files on the command line, and the page about them: all its blocks run."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from echograd.workbench.cli import main
from echograd.workbench.training import Run

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]

PAGE = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text(encoding="utf-8")
SIZES = ["--recipe", "plain", "--hidden", "8", "--units", "8", "--blocks", "1", "--epochs", "5"]


def spoken(capsys, *arguments, code=0):
    """Run a command and return all that it prints, in one line."""
    assert main(list(map(str, arguments))) == code
    said = capsys.readouterr()
    return " ".join((said.err if code else said.out).split())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder after all blocks of the page have run in it, with smaller models; and what the commands printed."""
    folder = tmp_path_factory.mktemp("page")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, block in re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
            if kind == "python":
                exec(compile(block, "own_data.md", "exec"), names)
                continue
            for line in block.splitlines():
                _, command, *arguments = shlex.split(line)
                if command != "report":  # another test writes one
                    assert main([command, *arguments, *(SIZES if command == "train" else [])]) == 0
    return folder


@pytest.fixture
def there(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def test_the_page_leaves_what_it_says(there):
    assert Run.open("runs/waves").config.dataset == "waves"
    assert Run.open("runs/waves").origin["path"] == "waves.csv"
    assert len(Path("predictions.csv").read_text().splitlines()) == 61
    summary = json.loads(Path("runs/three/summary.json").read_text())
    assert summary["seeds"] == [0, 1, 2]
    assert summary["ensemble"].keys() >= {"accuracy", "loss"}


def test_the_command_says_what_it_has_recognised(there, capsys):
    said = spoken(capsys, "train", "waves.csv", *SIZES, "--label", "label", "--out", "runs/told")
    for words in (
        "column 'label' is the label",
        "12 of 60 cases are held out",
        "1 blocks of 8 units",
        "On the 12 test",
    ):
        assert words in said
    assert "npz" in spoken(capsys, "datasets", "formats")


def test_options_for_own_files_are_refused_for_others(there, capsys):
    assert "--label is for own files" in spoken(capsys, "train", "ecg-afib", "--label", "x", code=1)
    assert "none.csv is missing" in spoken(capsys, "train", "none.csv", code=1)
    assert "no column 'kind' (--label)" in spoken(capsys, "train", "waves.csv", "--label", "kind", code=1)


def test_a_run_is_resumed_with_its_files(there, capsys):
    first = Run.open("runs/waves").results
    Path("runs/waves/results.json").unlink()
    assert "On the 12 test cases" in spoken(capsys, "train", "--resume", "--out", "runs/waves")
    again = Run.open("runs/waves").results
    assert again["test"] == first["test"]
    from_config = ["train", "--config", "runs/waves/config.json", "--out", "runs/config"]
    assert main(from_config) == 0
    assert Run.open("runs/config").results["test"] == first["test"]


def test_several_seeds_are_resumed(there, capsys):
    said = spoken(capsys, "train", "--resume", "--out", "runs/three", "--seeds", "3")
    assert "accuracy" in said
    assert "±" in said
    assert "Pass their number (--seeds N)" in spoken(capsys, "train", "--resume", "--out", "runs/three", code=1)


def test_a_file_that_was_moved(there, capsys):
    Path("waves.csv").rename("moved.csv")
    try:
        said = spoken(capsys, "evaluate", "runs/waves", code=1)
        assert "was trained on waves.csv" in said
        assert "--data FILE" in said
        assert "12 test cases" in spoken(capsys, "evaluate", "runs/waves", "--data", "moved.csv")
        assert "60 cases agree" in spoken(capsys, "predict", "runs/waves", "moved.csv")
        lines = Path("moved.csv").read_text().splitlines()
        Path("other.csv").write_text("\n".join(lines[:40]))
        assert "has other cases" in spoken(capsys, "evaluate", "runs/waves", "--data", "other.csv", code=1)
    finally:
        Path("moved.csv").rename("waves.csv")


def test_predictions(there, capsys):
    lines = Path("waves.csv").read_text().splitlines()
    Path("new.csv").write_text("\n".join(line.partition(",")[2] for line in lines))
    said = spoken(capsys, "predict", "runs/waves", "new.csv", "--out", "new-predictions")
    assert "no labels" in said
    arrays = np.load("new-predictions.npz")
    assert arrays["classes"].tolist() == ["fast", "slow"]
    X = np.array([[float(x) for x in line.split(",")[1:]] for line in lines[1:]])
    np.testing.assert_array_equal(arrays["probabilities"], Run.open("runs/waves").predict(X).probabilities)
    table = [line.split(",") for line in Path("new-predictions.csv").read_text().splitlines()]
    assert table[0] == ["case", "label", "probability of fast", "probability of slow"]
    assert [row[1] for row in table[1:]] == arrays["labels"].tolist()
    assert "exists" in spoken(capsys, "predict", "runs/waves", "new.csv", "--out", "new-predictions", code=1)
    assert "must be .csv or .npz" in spoken(capsys, "predict", "runs/waves", "new.csv", "--out", "x.txt", code=1)
    agreed = spoken(capsys, "predict", "runs/waves", "waves.csv")
    assert "of 60 cases agree with the labels of the file" in agreed
    np.savez("two.npz", X=np.zeros((3, 2, 40)))
    assert "trained on 1" in spoken(capsys, "predict", "runs/waves", "two.npz", code=1)
