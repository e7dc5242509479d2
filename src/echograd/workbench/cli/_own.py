"""Data sets on the command line: a name, or a path to own files with options that say how to read them."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from rich.console import Console

from echograd import ArgumentError

from ..data import Dataset, load, read_dataset
from ..data._own import is_path, name_of
from ..training import Run

_OPTIONS = ("test", "label", "id", "time", "group", "task", "missing")


@dataclasses.dataclass(frozen=True)
class OwnData:
    """How to read own files.

    Attributes:
        test: own files: a file with the test cases.
        label: own files: the column of labels (default: label, class, target or y, or the first one without a header).
        id: own files with one step a row: the column of the case (default: id, case or series).
        time: own files with one step a row: the column of the time (default: time, t, timestamp or date).
        group: own files: the column of the source of a case, such as a patient; groups are never split.
        task: own files: classification or regression (default: regression if labels are not integers).
        missing: own files: interpolate missing values (default), or stop with an error.
        test_fraction: own files without test cases: share of the cases to hold out (default 0.2).
        split_seed: own files without test cases: seed of the draw of the test cases (default 0).
    """

    test: pathlib.Path | None = None
    label: str | None = None
    id: str | None = None
    time: str | None = None
    group: str | None = None
    task: Literal["classification", "regression"] | None = None
    missing: Literal["interpolate", "error"] | None = None
    test_fraction: float | None = None
    split_seed: int | None = None

    def given(self) -> dict[str, Any]:
        """Return the options that were given, as arguments of `read_dataset`."""
        values = {name: getattr(self, name) for name in (*_OPTIONS, "test_fraction")} | {"seed": self.split_seed}
        return {name: value for name, value in values.items() if value is not None}

    def read(self, name: str, origin: Mapping[str, Any] | None = None) -> Dataset:
        """Return the data set with a name, or of a path; `origin` has the arguments of the run to resume."""
        given = self.given()
        if origin is not None and name == name_of(origin["path"]):
            name = origin["path"]
        if origin is not None and is_path(name):
            moved = {} if name == origin["path"] else {"test": None}
            return read_dataset(**{**origin, **moved, **given, "path": name})
        if is_path(name) or (given and pathlib.Path(name).is_dir()):
            return read_dataset(name, **given)
        if given:
            option = next(iter(given)).replace("_", "-").replace("seed", "split-seed")
            raise ArgumentError(
                f"--{option} is for own files, but {name!r} is the name of a data set. Leave it out, or pass a path."
            )
        try:
            return load(name)
        except ArgumentError:
            if not pathlib.Path(name).is_dir():
                raise
            return read_dataset(f"{name}/")  # a folder with the name of no data set


def told(out: Console, dataset: Dataset) -> None:
    """Print how own files were read."""
    if dataset.origin is not None:
        for note in dataset.description.splitlines():
            out.print(note, markup=False, soft_wrap=True)


def open_run(folder: pathlib.Path, data: pathlib.Path | None) -> Run:
    """Open a run; `data` is the new place of the own file that it was trained on."""
    run = Run.open(folder)
    if data is None:
        return run
    if run.origin is None:
        raise ArgumentError(
            f"--data: {folder} was trained on the data set {run.config.dataset!r}, not on an own file. Leave --data "
            "out."
        )
    dataset = read_dataset(**{**run.origin, "path": str(data)})
    return Run.open(folder, dataset)
