"""Folders of cases: one sub-folder per class with one file per case, or files for training and test."""

import os
import pathlib

import numpy as np

from ._errors import DataError
from ._npz import collect_one
from ._own_cases import TIMES, Clock, Collected, Reading, stamp
from ._table import read_table
from ._wav import read_wav

_TABLES = (".csv", ".tsv", ".txt")
_CASES = (*_TABLES, ".npy", ".wav")
ENDINGS = (".csv", ".tsv", ".txt", ".npz", ".ts", ".arff")


def find_pair(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path] | None:
    """Return train and test of a folder: `train.csv` and `test.csv`, `NAME_TRAIN.ts` and `NAME_TEST.ts`, or folders."""
    entries = {path.name.casefold(): path for path in _entries(folder)}
    sides = [[entries.get(side) for side in ("train", "test")]]
    for ending in ENDINGS:
        sides.append([entries.get(f"{side}{ending}") for side in ("train", "test")])
        stems = [name.removesuffix(f"_train{ending}") for name in entries if name.endswith(f"_train{ending}")]
        if len(stems) > 1:
            raise DataError(
                f"{folder} has training files of {len(stems)} data sets ({', '.join(sorted(stems))[:80]}). Pass one "
                "file and its test file (--test)."
            )
        sides += [[entries.get(f"{stem}_{side}{ending}") for side in ("train", "test")] for stem in stems]
    for train, test in sides:
        if train is not None and test is not None and train.is_dir() == test.is_dir():
            return train, test
    return None


def read_folder(folder: pathlib.Path, how: Reading) -> Collected:
    """Return the cases of a folder with one sub-folder per class, which holds one file per case."""
    classes = [path for path in _entries(folder) if path.is_dir()]
    if not classes:
        raise DataError(
            f"{folder} has no sub-folders and no train and test files. Supported: one sub-folder for each class "
            f"with one file for each case ({', '.join(_CASES)}); or train.csv and test.csv; or NAME_TRAIN.ts and "
            f"NAME_TEST.ts (or other endings: {', '.join(ENDINGS)})."
        )
    found, clock, other = Collected(folder, how), Clock(), []
    for place in classes:
        files = [path for path in _entries(place) if path.suffix.casefold() in _CASES]
        other += [path for path in _entries(place) if path not in files]
        if not files:
            raise DataError(f"{place} is the folder of a class, but holds no file of a case ({', '.join(_CASES)}).")
        for file in files:
            one, rate = _case(file, how, clock)
            if found.series and (one.channel_names != found.channel_names or rate != found.sample_rate):
                raise DataError(
                    f"{file} has {_said(one.channel_names, rate)}, but the files before it have "
                    f"{_said(found.channel_names, found.sample_rate)}. Give all files the same columns and sample rate."
                )
            found.channel_names, found.sample_rate = one.channel_names, rate
            found.take(one, place.name)
    found.notes.append(
        f"One folder a class ({', '.join(place.name for place in classes)[:100]}), one file a case: "
        f"{len(found.series)} cases."
    )
    if other:
        found.notes.append(f"{len(other)} other files are left out, such as {other[0].name}.")
    found.notes += clock.notes()
    return found


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return files and folders by name, without hidden ones."""
    return sorted(folder / name for name in os.listdir(folder) if not name.startswith((".", "__")))


def _case(path: pathlib.Path, how: Reading, clock: Clock) -> tuple[Collected, float | None]:
    """Return one case of a file, and its sample rate."""
    ending = path.suffix.casefold()
    if ending == ".npy":
        return collect_one(path, how), None
    found = Collected(path, how)
    if ending == ".wav":
        samples, rate = read_wav(path)
        found.add(samples, str(path), None)
        return found, rate
    asked = () if how.time is None else (how.time.casefold(),)
    table = read_table(path, (*TIMES, *asked))
    times = [table.find(how.time, "--time")] if how.time is not None else table.among(TIMES)
    columns = [i for i in range(table.width) if i not in times[:1]]
    if not columns:
        raise DataError(f"{path} has no column besides the time.")
    steps = table.rows
    if times:
        stamps = [stamp(table, line, cells[times[0]], times[0]) for line, cells in steps]
        steps = [steps[i] for i in clock.order(stamps, [line for line, _ in steps], str(path))]
    values = [table.numbers(line, [cells[i] for i in columns], columns) for line, cells in steps]
    found.add(np.stack(values), str(path), None)
    found.channel_names = tuple(table.header[i] for i in columns) if table.header else ()
    return found, None


def _said(names: tuple[str, ...], rate: float | None) -> str:
    hertz = "" if rate is None else f" at {rate:g} Hz"
    return f"the columns {', '.join(names)[:80]}{hertz}" if names else f"columns without names{hertz}"
