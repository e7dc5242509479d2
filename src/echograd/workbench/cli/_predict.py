"""`echograd predict`: predict the cases of a file with the best model of a run."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import tyro

from echograd import ArgumentError
from echograd._internal._files import write_atomically

from ..data import Cases, read_cases
from ..training import Predictions, Run
from ._tables import check_new_file, console, plain_table

_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict the cases of a file with the best model of a run. The data set of the run is not needed.

    The file is read as the run's own files were, if it was trained on own files; labels may be missing.
    `echograd datasets formats` shows what can be read.

    Attributes:
        run: folder of the run.
        file: file or folder with the cases.
        out: write all predictions to a new file: .csv (label and probabilities, or predicted target, of every case) or
            .npz (arrays labels and probabilities, or outputs). An ending-less name writes both.
        label: the column of labels, which is left out; see `echograd train --help` for this and the following.
        id: the column of the case.
        time: the column of the time.
        group: the column of the source of a case, which is left out.
    """

    run: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    file: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    out: pathlib.Path | None = None
    label: str | None = None
    id: str | None = None
    time: str | None = None
    group: str | None = None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = tyro.cli(Predict, args=argv, prog="echograd predict")
    files = _files(command.out)
    run, out = Run.open(command.run), console()
    cases = _cases(command, run)
    found = run.predict([case.T for case in cases.series])
    columns = _columns(found)
    for note in cases.notes:
        out.print(note, markup=False, soft_wrap=True)
    table = plain_table("case", *columns, sides="><" if found.class_names else ">>")
    for i in range(min(len(found), _SHOWN)):
        table.add_row(
            str(i), *(value if isinstance(value := values[i], str) else f"{value:.4g}" for values in columns.values())
        )
    out.print(table)
    if len(found) > _SHOWN:
        more = "" if files else " --out FILE writes them."
        out.print(f"and {len(found) - _SHOWN} more cases.{more}", markup=False)
    for line in _score(found, cases):
        out.print(line, markup=False)
    for file in files:
        _write(file, found, columns)
        out.print(f"Wrote {file}", markup=False, soft_wrap=True)
    return 0


def _files(out: pathlib.Path | None) -> list[pathlib.Path]:
    """Return the files to write, or raise if one exists or has another ending."""
    if out is None:
        return []
    if out.suffix not in ("", ".csv", ".npz"):
        raise ArgumentError(f"--out {out}: the ending must be .csv or .npz, or be left out to write both.")
    files = [out] if out.suffix else [out.with_suffix(".csv"), out.with_suffix(".npz")]
    for file in files:
        check_new_file(file)
    return files


def _cases(command: Predict, run: Run) -> Cases:
    """Read the file as the run's own files were read."""
    origin = run.origin or {}
    options: dict[str, Any] = {
        name: value if (value := getattr(command, name)) is not None else origin.get(name)
        for name in ("label", "id", "time", "group")
    }
    options |= {name: origin[name] for name in ("task", "missing") if origin.get(name) is not None}
    return read_cases(command.file, labelled=False, **options)


def _columns(found: Predictions) -> dict[str, Any]:
    """Return the columns of the table of predictions."""
    if found.class_names:
        shares = found.probabilities
        names = {f"probability of {name}": shares[:, i] for i, name in enumerate(found.class_names)}
        return {"label": found.labels.tolist(), **names}
    outputs = found.outputs.reshape(len(found), -1)
    return {f"output {i}": outputs[:, i] for i in range(outputs.shape[1])}


def _score(found: Predictions, cases: Cases) -> list[str]:
    """Return the score if the file has labels."""
    if found.class_names and cases.labels is not None:
        right = sum(a == b for a, b in zip(found.labels.tolist(), cases.labels, strict=True))
        return [f"{right} of {len(found)} cases agree with the labels of the file ({right / len(found):.1%})."]
    if not found.class_names and cases.targets is not None and found.outputs.shape == cases.targets.shape:
        error = float(np.mean(np.abs(found.outputs - cases.targets)))
        return [f"The mean absolute error against the labels of the file is {error:.4g}."]
    return []


def _write(file: pathlib.Path, found: Predictions, columns: dict[str, Any]) -> None:
    """Write all predictions."""
    if file.suffix == ".npz":
        arrays = {"labels": found.labels, "probabilities": found.probabilities} if found.class_names else {}
        arrays |= {"classes": np.array(found.class_names)} if found.class_names else {"outputs": found.outputs}
        write_atomically(file, lambda stream: np.savez(stream, allow_pickle=False, **arrays))
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *columns])
    for i in range(len(found)):
        writer.writerow([i, *(values[i] for values in columns.values())])
    write_atomically(file, lambda stream: stream.write(text.getvalue().encode()))
