"""`echograd diagnose`: its output and exit code."""

import pytest

from echograd.workbench.cli import main

pytestmark = pytest.mark.least_effort


def test_the_findings_are_printed(capsys):
    assert main(["diagnose", "fput", "--steps", "20"]) == 0
    shown = capsys.readouterr().out
    assert "retrace" in shown
    assert "Exact gradient: Echo" in shown


def test_the_exit_code_tells_that_only_backprop_is_exact(capsys):
    """With damping this strong the start is lost in rounding, and an echo does not retrace the path."""
    assert main(["diagnose", "duffing", "--damping", "3", "--dt", "0.1"]) == 1
    shown = capsys.readouterr().out
    assert "mass-proportional" in shown
    assert "Exact gradient: Backprop. Backprop():" in shown


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--steps", "0"], "steps=0; it must be at least 1"),
        (["--dt", "nan"], "dt=nan; a time step must be positive"),
        (["--dt", "-1"], "dt=-1"),
        (["--damping", "-0.5"], "damping=-0.5; a rate"),
        (["double-pendulum", "--damping", "0.5"], "double-pendulum is not separable"),
        (["pendulums", "--dt", "50", "--steps", "20"], "echograd diagnose: solve: the step is unstable."),
    ],
)
def test_what_cannot_be_is_refused_at_once(capsys, arguments, complaint):
    assert main(["diagnose", *arguments]) == 1
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert "JIT" not in said
    assert main(["diagnose", "perpetuum-mobile"]) == 2
