"""The command line: every command, its exit codes, and its messages."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from echograd.workbench.cli import main
from echograd.workbench.cli._main import guarded
from echograd.workbench.cli._tables import for_shell
from echograd.workbench.data import available
from echograd.workbench.training import Run
from waves import numbers, waves

# A run has its own precision: float64 around it or not, it is the same.
pytestmark = [pytest.mark.slow, pytest.mark.precision_free, pytest.mark.least_effort]

SIZES = ["--recipe", "plain", "--hidden", "4", "--units", "3", "--blocks", "1", "--epochs", "2", "--batch-size", "8"]


def write_ts(path, split):
    """Write cases in the format of the UEA archive."""
    lines = ["@problemName Waves", "@univariate false", "@dimensions 2", "@equalLength true", "@seriesLength 24"]
    lines += ["@classLabel true slow fast", "@data"]
    for case, target in zip(split.inputs, split.targets, strict=True):
        channels = [",".join(f"{value:.6g}" for value in channel) for channel in case.T]
        lines.append(":".join([*channels, ("slow", "fast")[target]]))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A data folder with one small set in it, and a working folder."""
    root = tmp_path_factory.mktemp("cli")
    data = waves((24, 8, 16), rare=0.4, equal=True)
    (root / "data" / "Waves").mkdir(parents=True)
    write_ts(root / "data" / "Waves" / "Waves_TRAIN.ts", data.train)
    write_ts(root / "data" / "Waves" / "Waves_TEST.ts", data.test)
    before = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECHOGRAD_DATA", str(root / "data"))
        os.chdir(root)
        yield root
        os.chdir(before)


@pytest.fixture(scope="module")
def run(folder):
    assert main(["train", "Waves", *SIZES]) == 0
    return folder / "runs" / "Waves-linear-echo-seed0"


@pytest.mark.both_precisions
def test_train_keeps_a_run_and_tells_about_it(folder, run, capsys):
    assert main(["train", "Waves", *SIZES, "--out", str(folder / "told")]) == 0
    said = capsys.readouterr().out
    for word in ("epoch", "best", "On the 16 test cases", "balanced accuracy", "majority baseline", "recall", "slow"):
        assert word in said
    assert Run.open(run).config.network.hidden == 4
    assert Run.open(run).history()[-1]["epoch"] == 2
    assert main(["train", "Waves", *SIZES, "--quiet", "--out", str(folder / "quiet")]) == 0
    assert "epoch" not in capsys.readouterr().out.split("On the 16")[0]


@pytest.mark.fast
@pytest.mark.both_precisions
def test_evaluate_says_what_the_results_say(run, capsys):
    assert main(["evaluate", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test"] == Run.open(run).results["test"]
    assert main(["evaluate", str(run), "--split", "validation"]) == 0
    said = capsys.readouterr().out
    assert "validation cases" in said
    assert "recall" in said
    assert main(["evaluate", str(run.parent / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("echograd evaluate: ")


def test_scores_that_are_no_numbers_are_null(run, capsys, monkeypatch):
    monkeypatch.setattr(Run, "evaluate", lambda *_: {"r2": float("nan"), "mse": 1.0})
    assert main(["evaluate", str(run), "--json"]) == 0
    assert capsys.readouterr().out == '{"test": {"r2": null, "mse": 1.0}}\n'


def test_a_run_is_not_overwritten(run, capsys):
    assert main(["train", "Waves", *SIZES]) == 1
    said = capsys.readouterr().err
    assert "not overwritten" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert said.count("\n") == 1


def test_resuming_takes_the_settings_of_the_run(run, capsys):
    before = Run.open(run).results
    assert main(["train", "--resume", "--out", str(run)]) == 0
    assert main(["train", "Waves", "--resume", "--recipe", "plain"]) == 0
    assert Run.open(run).results == before
    capsys.readouterr()
    assert main(["train", "--resume", "--out", str(run), "--epochs", "3"]) == 1
    assert "epochs is 2 there and 3 here" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(run.parent / "nothing")]) == 1
    assert "Leave out --resume" in capsys.readouterr().err


def test_names_are_printed_as_they_are(folder, capsys):
    """Brackets in names of folders and classes are not markup, and printed commands are quoted for the shell."""
    (folder / "data" / "Odd").mkdir()
    for part in ("TRAIN", "TEST"):
        text = (folder / "data" / "Waves" / f"Waves_{part}.ts").read_text()
        (folder / "data" / "Odd" / f"Odd_{part}.ts").write_text(text.replace("slow", "[bold]").replace("fast", "[/f]"))
    out = folder / "ein [bold]Lauf[/x] größer"
    assert main(["train", "Odd", *SIZES, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count(f"{out}") == 2
    assert "[bold]" in said.replace(str(out), "")
    assert "[/f]" in said
    assert main(["evaluate", str(out)]) == 0
    assert f"{out}: Odd" in capsys.readouterr().out
    assert for_shell(out) == f"'{out}'"
    assert for_shell(pathlib.Path("-run")) == "./-run"
    assert main(["train", "Waves", "--out", "-run"]) == 2
    said = capsys.readouterr().err
    assert "echograd train --help" in said  # the command's own words, not those of a parser before it
    assert "usage" not in said


def test_settings_come_from_a_file(folder, run, capsys):
    command = ["train", "--config", str(run / "config.json"), "--epochs", "1", "--out", str(folder / "from-file")]
    assert main([*command, "--quiet"]) == 0
    config = Run.open(folder / "from-file").config
    assert (config.network.hidden, config.epochs, config.dataset) == (4, 1, "Waves")
    (folder / "bad.json").write_text('{"dataset": "Waves", "epoch": 1}')
    assert main(["train", "--config", str(folder / "bad.json")]) == 1
    assert "Did you mean 'epochs'" in capsys.readouterr().err
    assert main(["train", "--config", str(folder / "none.json")]) == 1
    assert "none.json cannot be read (No such file or directory). Pass" in capsys.readouterr().err
    (folder / "worse.json").write_text("epochs: 1")
    assert main(["train", "--config", str(folder / "worse.json")]) == 1
    assert "does not hold settings in JSON" in capsys.readouterr().err
    (folder / "deep.json").write_bytes(b"[" * 100_000)
    assert main(["train", "--config", str(folder / "deep.json")]) == 1
    assert "deep.json does not hold settings: it is nested too deep." in capsys.readouterr().err


@pytest.fixture(scope="module")
def unbroken(folder):
    assert main([*LONG, "--out", str(folder / "unbroken")]) == 0
    return numbers(folder / "unbroken")


LONG = ["train", "Waves", *SIZES, "--epochs", "40", "--quiet"]

# The command line in a separate process that another thread kills at a random moment. The last epoch waits for the
# signal, so training cannot end before it.
KILLED = """
import os, signal, sys, threading, time
from echograd.workbench.cli import _train, main

tell = _train.Show.__call__
sender = threading.Thread(target=lambda: (time.sleep(0.02), os.kill(os.getpid(), signal.SIGKILL)))

def show(self, now):
    tell(self, now)
    if now.epoch == 3 and now.record is not None:
        sender.start()
    if now.epoch == now.epochs:
        time.sleep(60)

_train.Show.__call__ = show
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.float64_only  # the precision of this process does not reach the other process
def test_a_killed_process_resumes_exactly(folder, unbroken):
    out = folder / "killed"
    # Like the programs of this module, which is marked `least_effort`: other programs round differently.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", KILLED, *LONG, "--out", str(out)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert not Run.open(out).finished
    assert len(Run.open(out).history()) >= 3
    assert main(["train", "--resume", "--out", str(out), "--quiet"]) == 0
    assert numbers(out) == unbroken


@pytest.mark.float64_only  # a run has its own precision, so the other leg would show the same
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "Interrupted."),
        (signal.SIGTERM, 143, "Stopped by SIGTERM."),
        (signal.SIGHUP, 129, "Stopped by SIGHUP."),
    ],
)
def test_a_run_that_is_asked_to_end_leaves_a_checkpoint_and_the_line_that_resumes_it(
    folder, unbroken, capsys, monkeypatch, number, code, word
):
    """The signals of Ctrl-C, a batch system, and a closing terminal. Background processes of a shell ignore Ctrl-C."""
    out, before = folder / f"broken-{code}", signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(
        signal, "getsignal", lambda n, real=signal.getsignal: signal.SIG_DFL if n == number else real(n)
    )

    def send():
        while not (out / "metrics.jsonl").is_file():
            time.sleep(0.005)
        signal.raise_signal(number)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert main([*LONG, "--out", str(out)]) == code
    finally:
        signal.signal(signal.SIGINT, before)
        sender.join()
    assert capsys.readouterr().err == f"{word} Resume with: echograd train --resume --out {out}\n"
    assert not Run.open(out).finished
    assert main(["train", "--resume", "--out", str(out), "--quiet"]) == 0
    assert numbers(out) == unbroken


def test_an_interrupt_before_the_run_began_promises_nothing(folder, capsys, monkeypatch):
    from echograd.workbench.cli import _train

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_train, "fit", interrupted)
    assert main(["train", "Waves", *SIZES, "--out", str(folder / "never")]) == 130
    assert capsys.readouterr().err == "Interrupted. Training had not begun.\n"


def test_ctrl_c_while_the_package_is_imported_is_quiet():
    """The import hook presses Ctrl-C just before JAX is imported."""
    program = """
import os, signal, sys

class Presses:
    def find_spec(name, *_):
        if name == "jax":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Presses)
import echograd_command
sys.exit(echograd_command.main())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_datasets_lists_what_is_known(folder, capsys):
    assert main(["datasets"]) == 0
    said = capsys.readouterr().out
    for entry in available():
        assert entry.name in said
    assert "cached" in said
    assert str(folder / "data") in said.replace("\n", "")
    assert main(["datasets", "ecg-afib-envelope"]) == 0
    assert "ODC-By" in capsys.readouterr().out
    assert main(["datasets", "FordA"]) == 0
    assert "FordA_TRAIN.ts" in capsys.readouterr().out
    assert main(["datasets", "nope"]) == 1


SMALL_CHECK = ["check", "Waves", "--hidden", "3", "--units", "2", "--blocks", "1", "--steps", "20", "--no-taylor"]


@pytest.mark.both_precisions
def test_check_passes_exact_gradients(capsys):
    assert main(SMALL_CHECK) == 0
    said = capsys.readouterr().out
    for word in ("dt", "inputs", "start", "system", "unit.angle", "decoder.weight", "cosine", "it passes"):
        assert word in said
    assert "TOO LARGE" not in said


def test_the_verdict_of_check(capsys):
    """Rounding errors are larger than a tolerance that no gradient meets."""
    strict = [*SMALL_CHECK, "--tolerance", "1e-30"]
    assert main(strict) == 1
    assert "TOO LARGE" in capsys.readouterr().out
    assert main([*strict, "--nudge", "one-sided"]) == 0
    assert "not judged" in capsys.readouterr().out


@pytest.mark.fast
def test_wrong_use_is_told(capsys):
    assert main([]) == 2
    assert "usage: echograd" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "usage: echograd" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert main(["trian"]) == 2
    assert "Did you mean `echograd train`" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert main(["train", "Waves", "--model", "cubic"]) == 2
    assert main(["train", "Waves", "--epochs", "0"]) == 2
    assert "epochs=0;" in capsys.readouterr().err
    assert main(["train", "nope"]) == 1
    capsys.readouterr()
    assert main(["check", "nope"]) == 1
    said = capsys.readouterr()
    assert not said.out  # at once: no gradient was computed
    assert "nope" in said.err
    assert main(["train", "--help"]) == 0


@pytest.mark.parametrize(
    "bug", [lambda: {}["bug"], lambda: int("x"), lambda: np.ones(2) @ np.ones(3), lambda: None + 1, lambda: 1 / 0]
)
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises((KeyError, ValueError, TypeError, ZeroDivisionError)):
        guarded("echograd x", bug)


def test_a_refusal_is_a_message_and_with_a_switch_a_traceback(monkeypatch, capsys):
    assert main(["check", "--units", "0"]) == 1
    assert capsys.readouterr().err == "echograd check: units=0; it must be at least 1.\n"
    monkeypatch.setenv("ECHOGRAD_TRACEBACK", "1")
    with pytest.raises(ValueError, match="at least 1"):
        main(["check", "--units", "0"])


@pytest.mark.parametrize("extra", ["tyro", "rich", "optax"])
def test_a_missing_extra_is_told_in_one_line(extra):
    program = (
        f"import sys; sys.modules[{extra!r}] = None; "
        "from echograd.workbench.cli import main; sys.exit(main(['train', 'x']))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr == f"echograd train: this command needs {extra}: pip install 'echograd[workbench]'\n"


def test_head_may_close_the_output():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = f"{sys.executable} -m echograd.workbench.cli datasets ecg-rhythm | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("ecg-rhythm: classification, 900 steps")
    assert done.stderr == ""


def test_predictions_are_those_of_the_run(run):
    """The set was read from files by name, and is read again."""
    logits = Run.open(run).predict("test")
    assert logits.shape == (16, 2)
    assert np.isfinite(logits).all()


def one_message(argv, capsys):
    """Run a command that has to fail, and return its exit code and its one short message."""
    code = main(argv)
    said = capsys.readouterr().err
    assert code in (1, 2), argv
    assert 0 < len(said) < 900, said
    assert "Traceback" not in said
    return code, said


WRONG = (
    """
train Waves --epochs 1e20|train Waves --learning-rate nan|train Waves --weight-decay inf|train Waves --angles 2 1
train Waves --units 1000000000|train Waves --blocks 100000000|train Waves --nudge symmetric --beta 0
train Waves --validation-fraction 1.5|train Waves --devices 0|train Waves --checkpoint-minutes nan
train Waves --out /dev/null/x|train Waves --config deep.json|train Waves --config binary.json
train Waves --config list.json|train Waves --config long.json|train Waves --config nan.json|train --config {}
train Waves --coordinator :: --processes 1 --process 0|evaluate /dev/null|evaluate .|report /dev/null|datasets a b
check Waves --tolerance nan|check Waves --nudge symmetric --beta nan|check Waves --model hopfield|audit fput --json .
diagnose fput --dt inf|diagnose kepler --damping nan
demo --out /dev/null|train Waves --hidden 4 --units 3 --blocks 1 --epochs 1 --learning-rate 1e30 --out diverged
""".replace("\n", "|")
    .strip("|")
    .split("|")
)


@pytest.mark.float64_only  # nothing here depends on the leg
@pytest.mark.parametrize("command", WRONG)
def test_wrong_options_are_told_in_one_short_message(folder, command, capsys):
    files = {"deep": b"[" * 100_000, "binary": bytes(range(256)), "list": b"[1, 2]", "nan": b'{"seed": NaN}'}
    for name, text in (files | {"long": b'{"dataset": "Waves", "epochs": ' + b"9" * 5000 + b"}"}).items():
        (folder / f"{name}.json").write_bytes(text)
    one_message(command.split(" "), capsys)


@pytest.mark.float64_only
@pytest.mark.parametrize("name", ["config.json", "best.eqx", "results.json"])
def test_a_damaged_run_is_refused_by_the_name_of_the_file(folder, run, name, capsys):
    """Bits flipped, ends cut off, bytes put in, other files in its place; seeded."""
    rng, whole = random.Random(name), (run / name).read_bytes()
    copy, others = folder / "damaged", [run / other for other in ("last.eqx", "metrics.jsonl")]

    def flipped(place):
        return whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :]

    damages = [flipped(rng.randrange(len(whole))) for _ in range(8)] + [whole[: rng.randrange(len(whole) - 2)]]
    damages += [b"", b"null\n", b'{"a":' * 50_000, rng.randbytes(300), *(other.read_bytes() for other in others)]
    for damaged in damages:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        (copy / name).write_bytes(damaged)
        code, said = one_message(["evaluate", str(copy)], capsys)
        assert (code, f"{copy / name} " in said) == (1, True), said
