"""Output folders: an obstacle is reported with its remedy, before any computation."""

import os
import pathlib

import pytest

from echograd._internal._files import make_folder, write_atomically
from echograd.workbench.cli import main
from echograd.workbench.cli._main import guarded

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]


@pytest.fixture
def place(tmp_path):
    """A folder with a file and two links in it that lead nowhere."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dangling", "dangling is a broken link"),
        ("loop", "loop is a broken link"),
        ("dangling/run", "dangling is a broken link"),
        ("file", "file is a file"),
        ("file/a/run", "file is a file"),
        ("x" * 300, "too long"),
    ],
)
def test_what_is_in_the_way_is_named(place, name, reason):
    with pytest.raises(OSError, match=rf"the folder .*{name} cannot be made: .*{reason}. Give another."):
        make_folder(place / name, "Give another.")
    assert (place / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_refused(place, monkeypatch):
    make_folder(place / "a" / "b", "Give another.")
    make_folder(place / "a" / "b", "Give another.")
    monkeypatch.setattr(os, "access", lambda *_: False)  # permissions do not bind the superuser
    with pytest.raises(PermissionError, match=r"may not be read and written by this user. Give another."):
        make_folder(place / "a" / "b", "Give another.")


def test_a_file_whose_folder_is_gone_was_not_left_intact(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"could not be written: its folder is gone.*begin anew") as caught:
        write_atomically(tmp_path / "gone" / "file", lambda file: file.write(b"x"))
    assert "intact" not in str(caught.value)


def test_the_demo_says_it_in_one_line(place, capsys):
    assert main(["demo", "--quick", "--out", str(place / "dangling")]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "dangling is a broken link" in said.err
    assert "(--out" in said.err or "another --out" in said.err
    assert not said.out  # nothing had begun


def test_an_audit_is_refused_at_once_for_a_file_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    # So many steps would exhaust the memory.
    assert main(["audit", "--steps", str(2**31 - 1), "--json", str(tmp_path / "audit.json")]) == 1
    assert f"cannot write into {tmp_path}. Choose a file in another folder" in capsys.readouterr().err


def test_other_files_are_named_with_the_remedy(capsys):
    assert guarded("echograd x", lambda: len(pathlib.Path("nowhere/at/all").read_text())) == 1
    said = capsys.readouterr().err
    assert said.startswith("echograd x: nowhere/at/all cannot be used (No such file or directory). Fix that")
