"""Train the columns of the table of accuracies, and write `docs/learning.md` from the stored results.

    python -m benchmarks.learning.table SET [SET ...] [--columns damped echo backprop] [--seeds 5]
    python -m benchmarks.learning.table --page-only

The data sets are those that `echograd datasets` lists. Every cell is a number of runs of `echograd train` with the
recipe of the set; the test cases are scored once per seed, at the end. A cell that is stored is not trained again.
"""

import argparse
import datetime
import json
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from echograd._internal._format import cores, processor
from echograd.workbench.data import Dataset, load
from echograd.workbench.training import fit_seeds, recipe

from . import _page

RESULTS = pathlib.Path(__file__).parent / "results"
DOCS = pathlib.Path(__file__).parents[2] / "docs"


# What a column changes in the recipe.
COLUMNS: dict[str, dict[str, Any]] = {
    "damped": {},
    "echo": {"model": "linear"},
    "backprop": {"model": "linear", "gradient": "backprop"},
    "nonlinear": {"model": "nonlinear"},
}


def train(dataset: Dataset, column: str, seeds: int, runs: pathlib.Path | None) -> dict[str, Any]:
    """Train one cell of the table and return its record."""
    config = recipe(dataset, **COLUMNS[column])
    with tempfile.TemporaryDirectory() as temporary:
        out = (pathlib.Path(temporary) if runs is None else runs) / f"{dataset.name}-{column}"
        found = fit_seeds(config, dataset, seeds=seeds, out=out, resume=True)
        results = [run.results for run in found.runs]
    return {
        "config": config.to_dict(),
        "seeds": found.summary["seeds"],
        "test": {name: values["each"] for name, values in found.summary["test"].items()},
        "ensemble": {name: value for name, value in found.summary["ensemble"].items() if name != "confusion"},
        "parameters": results[0]["parameters"],
        "seconds": [round(result["seconds"], 1) for result in results],
        "jax": jax.__version__,
        "machine": f"{processor()}, {cores()} cores",
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    """Train what is missing and write the page."""
    parser = argparse.ArgumentParser(description="train the table of accuracies, and write docs/learning.md")
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=["damped", "echo", "backprop"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=pathlib.Path, help="keep the folders of the runs here, and resume them")
    parser.add_argument("--fresh", action="store_true", help="train stored cells again")
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    for name in [] if options.page_only else options.sets:
        dataset = load(name, download=False)
        path = RESULTS / f"{name}.json"
        for column in options.columns:
            record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"set": name, "columns": {}}
            if column in record["columns"] and not options.fresh:
                continue
            record |= {
                "task": dataset.task,
                "classes": dataset.classes,
                "cases": {side: len(split) for side, split in dataset.splits.items()},
                "length": dataset.length,
                "channels": dataset.inputs_dim,
            }
            record["columns"][column] = train(dataset, column, options.seeds, options.runs)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            each = record["columns"][column]["test"]
            metric = "accuracy" if "accuracy" in each else "mae"
            print(f"{name}, {column}: {metric} {np.mean(each[metric]):.4f}", flush=True)
    _page.write(RESULTS, DOCS / "learning.md")


if __name__ == "__main__":
    main()
