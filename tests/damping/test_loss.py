"""The classes of docs/loss.md: where energy is lost, each has an exact gradient, and a control that fails."""

import importlib.util
import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.float64_only, pytest.mark.least_effort]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "loss.md").read_text(encoding="utf-8")


def script():
    spec = importlib.util.spec_from_file_location("lossy_systems", ROOT / "scripts" / "lossy_systems.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROWS = script().ROWS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_exact_and_its_control_fails(row):
    machine, software, control = row.errors()
    assert (machine is None) == (row.machine == "none")
    assert machine is None or machine < 1e-9
    assert software < 1e-9
    assert control > 1e-3


def test_the_table_is_that_of_the_script():
    rows = re.findall(
        r"^\| (.*?) \| (.*?)(?:: \*\*.*?\*\*)? \| (.*?): \*\*.*?\*\* \| (.*?): \*\*.*?\*\* \|$", PAGE, re.M
    )
    assert rows == [row[:4] for row in ROWS]
