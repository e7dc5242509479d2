"""Your own files as data sets."""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from echograd import ArgumentError
from echograd._internal import _checks
from echograd._internal._checks import shown

from .._paths import as_path
from ._arff import read_arff
from ._cases import Cases, Missing, check_missing, dataset_from_cases
from ._dataset import Dataset, Task, drawn
from ._errors import DataError
from ._files import read_ts
from ._npz import collect, parts_of, read_npz
from ._own_cases import Reading, read_own_table
from ._own_folder import ENDINGS, find_pair, read_folder

_TASKS = ("classification", "regression")


def is_path(name: str) -> bool:
    """Return whether a name of a data set is that of an own file or folder."""
    known = pathlib.PurePath(name).suffix.casefold() in ENDINGS
    return known or os.sep in name or "/" in name or os.path.isfile(name)


def read_cases(
    path: str | os.PathLike,
    *,
    label: str | None = None,
    id: str | None = None,
    time: str | None = None,
    group: str | None = None,
    task: Task | None = None,
    missing: Missing = "interpolate",
    labelled: bool = True,
) -> Cases:
    r"""Read the cases of your own file or folder. `docs/own_data.md` has an example of every form.

    - ``.csv``, ``.tsv``, ``.txt``, wide form: one case a row, a column of labels, the other columns are steps. Long
      form: one step a row, columns for the case and the time, one column for each channel. Separators (commas,
      semicolons, tabs, blanks), decimal commas and headers are recognised.
    - ``.npz``: ``X`` of shape (cases, channels, steps) or (cases, steps), ``y``, and optional ``lengths`` and
      ``groups``.
    - ``.ts`` and ``.arff``: see `read_ts` and `read_arff`.
    - A folder with one sub-folder for each class, which has one file for each case: ``.csv`` (one step a row), ``.npy``
      of shape (channels, steps), or ``.wav``.

    Args:
        path: the file or folder.
        label: the column of labels; by default the one named label, class, target or y, or the first one if there is no
            header. In a file without a header it is a number from 1, or "last".
        id: the column that tells the case of a row (long form); by default the one named id, case or series.
        time: the column of times (long form), numbers or dates; by default the one named time, t, timestamp or date.
        group: the column that tells the source of a case, such as a patient.
        task: "classification" or "regression"; by default regression if the labels are real numbers that are not all
            integers.
        missing: "interpolate" interpolates missing values linearly in time, "error" raises. Missing values at the end
            of all channels make a case shorter.
        labelled: False accepts files without labels.

    Returns:
        The cases. Their `notes` say what was recognised, interpolated, sorted or left out.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentTypeError: an argument has the wrong type.
        ArgumentError: an argument has a wrong value.
        DataError: the file is in another format, damaged, or contradicts itself. The message has the line.

    Example:
        ```python
        cases = read_cases("beats.csv", label="rhythm")
        print(*cases.notes, sep="\n")
        ```
    """
    place, how = _checked("read_cases", path, label, id, time, group, task, missing, labelled)
    found = _read(place, how)
    if len(found) > 1:
        raise DataError(f"{place} has training and test cases. Read it with read_dataset.")
    return found[0]


def read_dataset(
    path: str | os.PathLike,
    *,
    test: str | os.PathLike | None = None,
    label: str | None = None,
    id: str | None = None,
    time: str | None = None,
    group: str | None = None,
    task: Task | None = None,
    missing: Missing = "interpolate",
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Read your own file or folder as a data set. Without test cases, a part of the cases is held out for the test.

    The test cases are those of `test`, of ``X_test`` in a ``.npz`` file, or of the files (or folders) ``test.csv`` or
    ``NAME_TEST.ts`` beside ``train.csv`` or ``NAME_TRAIN.ts`` in a folder. Otherwise `test_fraction` of every class is
    held out; if groups are known, whole groups.

    Args:
        path: the file or folder, see `read_cases`.
        test: a file or folder with the test cases.
        label: see `read_cases`.
        id: see `read_cases`.
        time: see `read_cases`.
        group: see `read_cases`.
        task: see `read_cases`.
        missing: see `read_cases`.
        test_fraction: share of the cases to hold out, between 0 and 1.
        seed: seed of the draw of test cases.

    Returns:
        The data set, named after the file, without validation cases. Its description has the notes of `read_cases`.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentTypeError: an argument has the wrong type.
        ArgumentError: an argument has a wrong value.
        DataError: a file is in another format or damaged; there is one class only, or no share of the cases can be held
            out; or the test cases do not fit the training cases.

    Example:
        ```python
        dataset = read_dataset("beats.csv", group="patient")
        run = fit(recipe(dataset), dataset, out="runs/beats")
        ```
    """
    place, how = _checked("read_dataset", path, label, id, time, group, task, missing, True)
    fraction = _checks.constant(
        "read_dataset", "test_fraction", test_fraction, lambda x: 0 < x < 1, "it must be between 0 and 1"
    )
    seed = _checks.integer("read_dataset", "seed", seed, 0, 2**63 - 1)
    origin: dict[str, Any] = {"path": str(path), "test": None if test is None else str(test)}
    origin |= {"label": label, "id": id, "time": time, "group": group, "task": task, "missing": missing}
    origin |= {"test_fraction": fraction, "seed": seed}
    found = _read(place, how)
    if test is not None:
        if len(found) > 1:
            raise DataError(f"{place} has test cases of its own. Leave the test file (--test) out.")
        others = _read(as_path("read_dataset", "test", test), how)
        if len(others) > 1:
            raise DataError(f"{test} has training cases, too. Pass a file with the test cases only.")
        found = [found[0], others[0]]
    notes = [note for cases in found for note in cases.notes]
    _check_classes(place, found[0], notes)
    if len(found) == 1:
        found = [*_held_out(place, found[0], fraction, seed, notes)]
    dataset = dataset_from_cases(
        _stem(place), found[0], found[1], description="\n".join(notes), source=str(path), licence="Yours."
    )
    notes += _constant(dataset)
    return dataclasses.replace(dataset, description="\n".join(dict.fromkeys(notes)), origin=origin)


def _checked(owner: str, path: Any, *values: Any) -> tuple[pathlib.Path, Reading]:
    """Return the path and the settings of reading, or raise."""
    how = Reading(*values)
    for name in ("label", "id", "time", "group"):
        value = getattr(how, name)
        if value is not None and not (isinstance(value, str) and value):
            raise ArgumentError(f"{owner}: {name}={shown(value)} is not the name of a column.")
    if how.task is not None:
        _checks.choice(owner, "task", how.task, _TASKS)
    check_missing(owner, how.missing)
    _checks.flag(owner, "labelled", how.labelled)
    return as_path(owner, "path", path), how


def _read(path: pathlib.Path, how: Reading) -> list[Cases]:
    """Return the cases of a file or folder, or those for training and those for the test."""
    if path.is_dir():
        pair = find_pair(path)
        if pair is None:
            return [read_folder(path, how).cases()]
        return [cases for side in pair for cases in _read(side, how)]
    ending = path.suffix.casefold()
    if ending == ".npz":
        arrays = read_npz(path)
        return [collect(path, arrays, suffix, how).cases() for suffix in parts_of(arrays)]
    if ending in (".ts", ".arff"):
        return [_declared(path, read_ts if ending == ".ts" else read_arff, how)]
    if ending in (".csv", ".tsv", ".txt"):
        return [read_own_table(path, how)]
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. Pass a file or folder that exists.")
    raise DataError(f"{path}: files of this kind cannot be read. Supported endings: {', '.join(ENDINGS)}; and folders.")


def _declared(path: pathlib.Path, read: Any, how: Reading) -> Cases:
    """Return the cases of a file whose header declares labels."""
    cases = read(path, missing=how.missing)
    task = "regression" if cases.labels is None else "classification"
    if how.task not in (None, task):
        raise DataError(f"{path}: its header declares {task}, not {how.task}. Leave the task (--task) out.")
    asked = [f"--{name}" for name in ("label", "id", "time", "group") if getattr(how, name) is not None]
    if asked:
        raise DataError(f"{path}: its header declares the columns. Leave {asked[0]} out.")
    return dataclasses.replace(cases, notes=(f"{len(cases.series)} cases of {path.name}; its header says {task}.",))


def _check_classes(path: pathlib.Path, cases: Cases, notes: list[str]) -> None:
    """Raise if there is only one class; note classes with a single case."""
    if cases.labels is None:
        if cases.targets is not None and np.ptp(cases.targets) == 0:
            raise DataError(f"{path}: all targets are {cases.targets[0, 0]:g}; there is nothing to learn.")
        return
    names, counts = np.unique(cases.labels, return_counts=True)
    names = names.tolist()
    if len(names) < 2:
        raise DataError(
            f"{path}: all {len(cases.labels)} cases have the label {names[0]!r}. A classifier needs two classes."
        )
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if len(single) == len(names) or len(names) > len(cases.labels) / 2:
        raise DataError(
            f"{path}: {len(names)} different labels for {len(cases.labels)} cases ({', '.join(names[:5])[:60]}, ...). "
            "Is this the column of labels? Pass another (--label); for measured numbers task='regression' (--task)."
        )
    if single:
        notes.append(
            f"Warning: of {'class' if len(single) == 1 else 'classes'} {', '.join(single)[:80]} there is a single "
            "case, which is trained on and never scored."
        )


def _held_out(path: pathlib.Path, cases: Cases, fraction: float, seed: int, notes: list[str]) -> tuple[Cases, Cases]:
    """Return training and test cases: a share of every class, or whole groups."""
    labels = None if cases.labels is None else np.unique(cases.labels, return_inverse=True)[1]
    groups = None if cases.groups is None else np.array(cases.groups)
    chosen = drawn(len(cases.series), labels, groups, fraction, seed)
    if chosen is None:
        kind = "cases" if groups is None else f"{len(set(cases.groups or ()))} groups"
        raise DataError(
            f"{path}: no test cases can be held out of its {len(cases.series)} cases so that every class stays in "
            f"training ({kind}). Pass a test file (--test), or another fraction (--test-fraction)."
        )
    count = int(chosen.sum())
    how = "drawn from every class" if cases.labels is not None else "drawn at random"
    if groups is not None:
        how = f"groups: {', '.join(sorted(set(groups[chosen])))[:80]}"
    notes.append(f"{count} of {len(chosen)} cases are held out for the test ({how}, seed {seed}).")
    return _take(cases, np.flatnonzero(~chosen)), _take(cases, np.flatnonzero(chosen))


def _take(cases: Cases, chosen: np.ndarray) -> Cases:
    def taken(values: Any) -> Any:
        return None if values is None else tuple(values[i] for i in chosen)

    return dataclasses.replace(
        cases,
        series=taken(cases.series),
        labels=taken(cases.labels),
        groups=taken(cases.groups),
        targets=None if cases.targets is None else cases.targets[chosen],
    )


def _constant(dataset: Dataset) -> list[str]:
    """Return a sentence about channels that are constant in training, or raise if all are."""
    valid = dataset.train.inputs[dataset.train.mask]
    flat = [name for name, spread in zip(dataset.channel_names, np.ptp(valid, axis=0), strict=True) if spread == 0]
    if len(flat) == dataset.inputs_dim:
        raise DataError(f"{dataset.name}: all values of the training cases are equal; there is nothing to learn from.")
    return [f"Warning: constant in all training cases: {', '.join(flat)[:120]}. Leave it out."] if flat else []


def name_of(name: str) -> str:
    """Return the name of a data set that is given by its name or its path."""
    return _stem(pathlib.Path(name)) if is_path(name) else name


def _stem(path: pathlib.Path) -> str:
    """Return the name of the data set of a file or folder."""
    name = path.resolve().name if path.is_dir() else path.stem
    for end in ("_TRAIN", "_train"):
        name = name.removesuffix(end)
    return name
