"""`echograd audit` and `echograd check --equivalence`: what they print and refuse."""

from echograd.cli import main


def test_the_equivalence_is_printed_and_judged(capsys, monkeypatch):
    from echograd import EquivalenceRow
    from echograd.cli import _check

    def measured(systems, difference):
        assert len(systems) == 3
        return [EquivalenceRow("chain", "midpoint", "running", "mass", difference, 1.0)]

    for difference, code in ((1e-13, 0), (1e-3, 1)):
        monkeypatch.setattr(_check, "equivalence", lambda systems, d=difference: measured(systems, d))
        assert main(["check", "--equivalence"]) == code
    shown = capsys.readouterr().out
    assert "running (RHEL)" in shown
    assert "the same" in shown
    assert "THEY DIFFER" in shown


def test_an_audit_does_not_overwrite(tmp_path, capsys):
    file = tmp_path / "audit.json"
    file.write_text("mine")
    assert main(["audit", "fput", "--json", str(file)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_an_audit_needs_a_system_of_the_zoo(capsys):
    assert main(["audit", "perpetuum-mobile"]) == 2
