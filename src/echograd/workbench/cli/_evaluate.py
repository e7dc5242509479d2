"""`echograd evaluate`: score the best model of a run."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from echograd._internal._files import finite

from ._own import open_run
from ._tables import confusion_table, console, kind, metrics_table


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score the best model of a run, computed again from its checkpoint.

    Attributes:
        run: folder of the run.
        split: the cases to score it on.
        data: new place of the own file or folder that the run was trained on, if it was moved.
        json: print JSON instead of tables.
    """

    run: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    split: Literal["test", "validation", "train"] = "test"
    data: pathlib.Path | None = None
    json: bool = False


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = tyro.cli(Evaluate, args=argv, prog="echograd evaluate")
    run = open_run(command.run, command.data)
    metrics = run.evaluate(command.split)
    if command.json:
        print(json.dumps(finite({command.split: metrics}), allow_nan=False))
        return 0
    out = console()
    config, cases = run.config, len(run.dataset.splits[command.split])
    what = f"{config.dataset}, {kind(config.model)}, {config.gradient} gradients"
    out.print(f"{command.run}: {what}", markup=False, soft_wrap=True)
    if not run.finished:
        out.print("Training is not finished; this is the best model so far.")
    out.print(metrics_table({f"{cases} {command.split} cases": metrics}))
    if run.dataset.class_names:
        out.print(confusion_table(metrics["confusion"], run.dataset.class_names))
    return 0
