"""The page of accuracies is what its command writes from the stored results, and the search is recorded."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning import _page, search, table

pytestmark = pytest.mark.precision_free

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_results_say(tmp_path):
    _page.write(table.RESULTS, tmp_path / "learning.md")
    assert (tmp_path / "learning.md").read_text() == (ROOT / "docs" / "learning.md").read_text()


def test_a_row_shows_mean_spread_ensemble_and_goal(tmp_path):
    test = {"accuracy": [0.95, 0.97, 0.96]}
    cell = {"test": test, "ensemble": {"accuracy": 0.9832}, "parameters": 1234, "seconds": [1.0, 2.0, 9.0]}
    cell |= {"seeds": [0, 1, 2], "machine": "a machine", "jax": "0"}
    other = cell | {"test": {"accuracy": [0.94, 0.98, 0.95]}}
    record = {"cases": {"train": 40}, "length": 2000, "classes": 2}
    record["columns"] = {"damped": cell, "echo": cell, "backprop": other}
    (tmp_path / "HouseTwenty.json").write_text(json.dumps(record))
    _page.write(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| HouseTwenty | 40 × 2000, 2 | 96.0 ± 1.0 | 98.3 | 96.0 ± 1.0 | 95.7 ± 2.1 | – |" in page
    assert "98: reached" in page
    assert "| HouseTwenty | +0.3 ± 1.2 | 2.1 | +0.0 |" in page
    assert "| HouseTwenty | damped | 1,234 | 2 | 3 | a machine, 0 |" in page
    assert "| FordA | not trained yet |" in page


def test_the_search_is_recorded_with_settings_that_exist():
    lines = [json.loads(line) for line in search.LOG.read_text().splitlines()]
    assert len(lines) > 20
    for line in lines:
        assert line["changes"].keys() <= search.DEFAULT.keys()
        assert len(line["accuracy"]) == len(line["marks"])


def test_folds_spread_every_class():
    targets = np.repeat(np.arange(5), 7)
    fold = search.folds_of(targets, 3, 0)
    counts = np.array([[np.sum((fold == f) & (targets == c)) for f in range(3)] for c in range(5)])
    assert counts.min() >= 2
    assert counts.max() <= 3
