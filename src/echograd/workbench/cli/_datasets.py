"""`echograd datasets`: list the known data sets, the folder of their files, and the forms of own files."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro
from rich.markup import escape

from ..data import available, data_folder, load
from ._tables import console, plain_table

FORMATS = """\
`echograd train PATH` reads your own file or folder. It prints what it has recognised.

Table, one case a row (.csv, .tsv, .txt). The label is the column named label, class, target or y, or --label NAME; in a
file without a header the first column. Empty cells at the end of a row make a case shorter.

    label,0,1,2,3
    walk,0.1,0.4,0.3,0.2
    run,1.2,0.9,1.4,

Table, one step a row, for several channels. The columns of case and time are id and time, or --id NAME --time NAME.
--group NAME keeps the cases of a patient, say, together.

    id,time,x,z,label,patient
    a,0.0,0.1,9.7,walk,p1
    a,0.1,0.3,9.9,walk,p1
    b,0.0,1.2,8.8,run,p2

NumPy (.npz): X of shape (cases, channels, steps) or (cases, steps), y, and optional lengths and groups; or X_train,
y_train, X_test and y_test.

    np.savez("mine.npz", X=X, y=y)

A folder with one sub-folder for each class and one file for each case: .csv (one step a row), .npy of shape
(channels, steps), or .wav.

    beats/normal/001.csv  beats/normal/002.csv  beats/ectopic/001.csv

Archives: .ts and .arff files. A folder with train.csv and test.csv, or NAME_TRAIN.ts and NAME_TEST.ts.

Test cases: --test FILE, or the test file of a folder. Otherwise --test-fraction of every class (or of the groups) is
held out. Missing values are interpolated in time (--missing error rejects them). Labels that are real numbers mean
regression.
"""


@dataclasses.dataclass(frozen=True)
class Datasets:
    """List the known data sets: bundled, in the data folder, or missing (downloaded on first use).

    Attributes:
        name: describe this data set only: cases, source and licence, or where to put its files; or "formats": show the
            forms of own files.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = tyro.cli(Datasets, args=argv, prog="echograd datasets")
    out = console()
    if command.name == "formats":
        out.print(FORMATS, markup=False, soft_wrap=True)
        return 0
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
        "says where to put the files of a data set, `echograd datasets formats` the forms of your own files.",
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
