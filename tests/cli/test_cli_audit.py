"""`echograd audit` and `echograd check --equivalence`: their output, and refused options."""

import pytest

import echograd as eg
from echograd.workbench.cli import main

pytestmark = [pytest.mark.precision_free, pytest.mark.fast, pytest.mark.least_effort]


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_the_equivalence_is_printed_and_judged(whole, capsys, monkeypatch):
    """One measurement, of the charge alone by default, judged by two tolerances."""
    from echograd.workbench.cli import _check

    measured = []

    def once(systems):
        assert len(systems) == 3
        if not measured:
            chosen = systems if whole else {name: x for name, x in systems.items() if name.startswith("charge")}
            measured.append(eg.equivalence(chosen))
        return measured[0]

    monkeypatch.setattr(_check, "equivalence", once)
    assert main(["check", "--equivalence"]) == 0
    shown = capsys.readouterr().out
    assert "running (RHEL)" in shown
    assert "the same" in shown
    assert main(["check", "--equivalence", "--tolerance", "1e-30"]) == 1
    assert "THEY DIFFER" in capsys.readouterr().out


def test_an_audit_tells_on_a_terminal_where_it_is(capsys, monkeypatch):
    from echograd.workbench.cli import _audit

    told = []

    def measured(*_, progress, growth):
        assert growth is False  # as in Python
        told.append(progress)
        return eg.AuditReport([], {})

    monkeypatch.setattr(_audit, "run", measured)
    for terminal in (True, False):
        monkeypatch.setattr("sys.stderr.isatty", lambda here=terminal: here)
        assert main(["audit", "fput"]) == 0
    told[0]("1 of 2: echo")
    assert told[1] is None
    assert "1 of 2: echo" in capsys.readouterr().err


def test_an_audit_does_not_overwrite(tmp_path, capsys):
    file = tmp_path / "audit.json"
    file.write_text("mine")
    assert main(["audit", "fput", "--json", str(file)]) == 1
    assert "audit.json exists" in capsys.readouterr().err
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("check --hidden 0", "hidden=0; it must be at least 1"),
        ("check --steps -3", "steps=-3; it must be at least 1"),
        ("check --cases 0", "cases=0; it must be at least 1"),
        ("check --units 999999999999", "units=999999999999; it must be below"),
        ("audit fput --steps 1", "steps=1; it must be at least 2"),
        ("audit fput --json {}/nowhere/audit.json", "nowhere is not a folder"),
    ],
)
def test_nonsense_is_refused_before_anything_is_computed(tmp_path, capsys, monkeypatch, arguments, complaint):
    from echograd.workbench.cli import _audit, _check

    (tmp_path / "file").write_text("mine")
    for module, name in ((_check, "load"), (_audit, "run")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it has begun"))
    assert main(arguments.format(tmp_path).split()) == 1
    assert complaint in capsys.readouterr().err.replace("\n", " ")


def test_a_seed_that_no_generator_takes_is_refused(capsys):
    assert main(["train", "ecg-rhythm-envelope", "--seed", "9" * 20]) == 2
    assert "seed=9999" in capsys.readouterr().err


def test_an_audit_needs_a_system_of_the_zoo(capsys):
    assert main(["audit", "perpetuum-mobile"]) == 2
