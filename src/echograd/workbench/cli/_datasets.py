"""`echograd datasets`: list the known data sets and the folder of their files."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro
from rich.markup import escape

from ..data import available, data_folder, load
from ._tables import console, plain_table


@dataclasses.dataclass(frozen=True)
class Datasets:
    """List the known data sets: bundled, in the data folder, or missing (downloaded on first use).

    Attributes:
        name: describe this data set only: cases, source and licence, or where to put its files.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = tyro.cli(Datasets, args=argv, prog="echograd datasets")
    out = console()
    if command.name is not None:
        out.print(_about(command.name), markup=False, soft_wrap=True)
        return 0
    columns = ("name", "state", "task", "train + validation + test", "steps", "channels", "classes")
    table = plain_table(*columns, sides="<<<")
    for entry in available():
        table.add_row(
            escape(entry.name),
            entry.state,
            entry.task or "?",
            "?" if entry.cases is None else " + ".join(map(str, entry.cases)),
            *("?" if value is None else f"{value:,}" for value in (entry.length, entry.channels)),
            "?" if entry.classes is None else str(entry.classes or "-"),
        )
    out.print(table)
    out.print(
        f"Missing data sets are downloaded on first use into {data_folder()} (set ECHOGRAD_DATA for another folder). "
        "By hand: put NAME_TRAIN.ts and NAME_TEST.ts (or .tsv, .arff) into the folder NAME there; for PPG-DaLiA, "
        "S1/S1.pkl to S15/S15.pkl. This works for any data set of the UCR and UEA archives. `echograd datasets NAME` "
        "describes a data set.",
        markup=False,
    )
    return 0


def _about(name: str) -> str:
    """Return the description of a data set, or how to get it."""
    try:
        dataset = load(name, download=False)
    except FileNotFoundError as error:
        return str(error)
    lines = [f"{name}: {dataset.task}, {dataset.length:,} steps × {', '.join(dataset.channel_names)}"]
    if dataset.sample_rate:
        lines[0] += f" at {dataset.sample_rate:g} Hz"
    for title, split in dataset.splits.items():
        line = f"- {title}: {len(split)} cases"
        if dataset.classes:
            counts = split.class_counts(dataset.classes)
            line += f" ({', '.join(f'{c} {n}' for n, c in zip(dataset.class_names, counts, strict=True))})"
        lines.append(line)
    return "\n".join([*lines, "", dataset.description, "", f"Source: {dataset.source}", f"Licence: {dataset.licence}"])
