"""Cases in tables: one case a row (wide form), or one step a row (long form)."""

import dataclasses
import datetime
import math
import pathlib
from typing import Any

import numpy as np

from ._cases import Cases, Missing, canonical, fill, label_of, number_of, trim
from ._dataset import Task
from ._errors import DataError
from ._table import Table, is_missing, read_table

LABELS = ("label", "class", "target", "y")
IDS = ("id", "case", "case_id", "series", "series_id", "unique_id")
TIMES = ("time", "t", "timestamp", "datetime", "date", "step")
_MOST_CLASSES = 20  # with more different integers than this and than half the cases, the task must be named


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read the cases of files; see `read_dataset` for the fields."""

    label: str | None = None
    id: str | None = None
    time: str | None = None
    group: str | None = None
    task: Task | None = None
    missing: Missing = "interpolate"
    labelled: bool = True


class Collected:
    """Cases that are being read, with their labels, and sentences about them."""

    def __init__(self, path: pathlib.Path, how: Reading) -> None:
        self.path, self.how = path, how
        self.series: list[np.ndarray] = []
        self.labels: list[str] = []
        self.groups: list[str] = []
        self.wheres: list[str] = []
        self.notes: list[str] = []
        self.channel_names: tuple[str, ...] = ()
        self.sample_rate: float | None = None
        self._gaps, self._with_gaps = 0, 0

    def add(self, case: np.ndarray, where: str, label: str | None, group: str | None = None) -> None:
        """Add a case of shape (steps, channels), with NaN for missing values; those at its end make it shorter."""
        case = trim(case, where)
        gaps = int(np.isnan(case).sum())
        self._gaps, self._with_gaps = self._gaps + gaps, self._with_gaps + bool(gaps)
        self.series.append(fill(case, self.how.missing, where))
        self.wheres.append(where)
        if label is not None:
            if is_missing(label.strip()):
                raise DataError(f"{where}: the case has no label. Leave it out, or write its label.")
            self.labels.append(label.strip())
        if group is not None:
            self.groups.append(group)

    def take(self, other: "Collected", label: str) -> None:
        """Add the cases of another file, all with one label."""
        self.series += other.series
        self.wheres += other.wheres
        self.labels += [label] * len(other.series)
        self._gaps, self._with_gaps = self._gaps + other._gaps, self._with_gaps + other._with_gaps

    def cases(self, headless: bool = False) -> Cases:
        """Return the cases; `headless` means that the label column was guessed."""
        if not self.series:
            raise DataError(f"{self.path}: no cases; the file is empty or truncated.")
        channels = sorted({case.shape[1] for case in self.series})
        if len(channels) > 1:
            raise DataError(
                f"{self.path}: cases with {channels[0]} to {channels[-1]} channels; all must have the same."
            )
        if self._gaps:
            self.notes.append(
                f"Missing values are interpolated linearly in time: {self._gaps}, in {self._with_gaps} of "
                f"{len(self.series)} cases (--missing error rejects them)."
            )
        names, targets = None, None
        if self.labels and self._task(headless) == "regression":
            for text, where in zip(self.labels, self.wheres, strict=True):
                label_of(text, where, {}, regression=True)
            targets = np.array([[number_of(text, "")] for text in self.labels], np.float32)
        elif self.labels:
            names = tuple(map(canonical, self.labels))
        groups = tuple(self.groups) or None
        return Cases(
            tuple(self.series), names, targets, (), groups, self.channel_names, self.sample_rate, tuple(self.notes)
        )

    def _task(self, headless: bool) -> Task:
        """Return the task, as given or as the labels say."""
        if self.how.task is not None:
            return self.how.task
        try:
            values = [float(label) for label in self.labels if "_" not in label]
        except ValueError:
            values = []
        if len(values) < len(self.labels):
            return "classification"
        different = len(set(values))
        if all(math.isfinite(value) and value == round(value) for value in values):
            if different > _MOST_CLASSES and different > len(values) / 2:
                raise DataError(
                    f"{self.path}: the labels of {len(values)} cases are {different} different integers. Are they "
                    "classes or measured numbers? Pass task='classification' or 'regression' (--task)."
                )
            return "classification"
        if headless:
            raise DataError(
                f"{self.path} has no header, and the column that would be the label holds real numbers "
                f"({self.labels[0]}). Name the label's column by its number or 'last' (--label last), or pass "
                "task='regression' (--task)."
            )
        self.notes.append(
            "The labels are real numbers, so the task is regression (--task classification overrides it)."
        )
        return "regression"


def read_own_table(path: pathlib.Path, how: Reading) -> Cases:
    """Read the cases of a table in wide or long form."""
    asked = [name.casefold() for name in (how.label, how.id, how.time, how.group) if name]
    table = read_table(path, (*LABELS, *IDS, *TIMES, *asked))
    ident, time = _column(table, how.id, "--id", IDS), _column(table, how.time, "--time", TIMES)
    repeated = ident is not None and len({cells[ident] for _, cells in table.rows}) < len(table.rows)
    if time is not None and ident is None and table.header:
        raise DataError(
            f"{path}: column {table.name(time)} says that a row is one step, but no column says which case a row "
            f"belongs to. Pass its name (--id). The columns are {table.listed()}."
        )
    long = how.id is not None or how.time is not None or repeated or (ident is not None and time is not None)
    if long and ident is not None:
        return _long(table, how, ident, time)
    return _wide(table, how, ident)


def _column(table: Table, name: str | None, option: str, usual: tuple[str, ...]) -> int | None:
    """Return the column that is named, or the only one with a usual name, or None."""
    if name is not None:
        return table.find(name, option)
    found = table.among(usual)
    return found[0] if len(found) == 1 else None


def _label_column(table: Table, how: Reading, others: set[int]) -> int | None:
    """Return the column of the labels; None if there is none and none is needed."""
    if how.label is not None and (how.labelled or table.among((how.label.casefold(),)) or not table.header):
        return table.find(how.label, "--label")
    if not table.header:
        return 0 if how.labelled else None
    found = [i for i in table.among(LABELS) if i not in others]
    if len(found) == 1 or not how.labelled:
        return found[0] if found else None
    if found:
        raise DataError(
            f"{table.path}: columns {table.name(found[0])} and {table.name(found[1])} could both be the label. Pass "
            "the name of one (--label); the other then holds values."
        )
    texts = [i for i in table.text_columns() if i not in others]
    hint = f" Is it {table.name(texts[0])}, the only column that holds text?" if len(texts) == 1 else ""
    raise DataError(
        f"{table.path}: no column is named {', '.join(LABELS[:-1])} or {LABELS[-1]}, so the label is unknown. Pass its "
        f"name (--label NAME).{hint} The columns are {table.listed()}."
    )


def _wide(table: Table, how: Reading, ident: int | None) -> Cases:
    """Return the cases of a table with one case a row."""
    group = None if how.group is None else table.find(how.group, "--group")
    others = {i for i in (group, ident) if i is not None}
    label = _label_column(table, how, others)
    values = [i for i in range(table.width) if i not in others and i != label]
    if not values:
        raise DataError(f"{table.path}: there is no column with values besides the label. Is the separator wrong?")
    found = Collected(table.path, how)
    for line, cells in table.rows:
        series = table.numbers(line, [cells[i] for i in values], values)
        where = f"{table.path}, line {line}"
        found.add(series[:, None], where, *(None if i is None else cells[i] for i in (label, group)))
    taken = "no labels" if label is None else f"column {table.name(label)} is the label"
    note = f"One case a row, {taken}, {len(values)} columns are the steps of one channel."
    if not table.header and label is not None and how.label is None:
        note += " (The file has no header.)"
    if ident is not None:
        note += f" Column {table.name(ident)} is left out."
    found.notes = [note, *table.notes]
    return found.cases(headless=not table.header and how.label is None)


def _long(table: Table, how: Reading, ident: int, time: int | None) -> Cases:
    """Return the cases of a table with one step a row."""
    group = None if how.group is None else table.find(how.group, "--group")
    others = {i for i in (group, ident, time) if i is not None}
    label = _label_column(table, how, others)
    values = [i for i in range(table.width) if i not in others and i != label]
    if not values:
        raise DataError(f"{table.path}: there is no column with values besides id, time and label.")
    rows: dict[str, list[tuple[int, list[str]]]] = {}
    for line, cells in table.rows:
        if is_missing(cells[ident]):
            raise DataError(f"{table.path}, line {line}: the row has no {table.name(ident)}, so its case is unknown.")
        rows.setdefault(cells[ident], []).append((line, cells))
    found, clock = Collected(table.path, how), Clock()
    for name, steps in rows.items():
        where = f"{table.path}, case {name[:40]}"
        for column in (label, group):
            other = next(
                (step for step in steps if column is not None and step[1][column] != steps[0][1][column]), None
            )
            if column is not None and other is not None:
                raise DataError(
                    f"{where}: column {table.name(column)} is {steps[0][1][column]!r} in line {steps[0][0]} and "
                    f"{other[1][column]!r} in line {other[0]}. It must be the same in all rows of a case. If another "
                    "column is the label or group, name it (--label, --group)."
                )
        if time is not None:
            stamps = [stamp(table, line, cells[time], time) for line, cells in steps]
            steps = [steps[i] for i in clock.order(stamps, [line for line, _ in steps], where)]
        series = np.stack([table.numbers(line, [cells[i] for i in values], values) for line, cells in steps])
        found.add(series, where, *(None if i is None else steps[0][1][i] for i in (label, group)))
    taken = "no labels" if label is None else f"{table.name(label)} is the label"
    times = "the order of the rows is the time" if time is None else f"{table.name(time)} the time"
    channels = ", ".join(table.header[i] for i in values)[:200]
    found.notes = [
        f"One step a row: column {table.name(ident)} is the case, {times}, {taken}; channels: {channels}.",
        *table.notes,
        *clock.notes(),
    ]
    found.channel_names, found.sample_rate = tuple(table.header[i] for i in values), clock.rate()
    return found.cases()


def stamp(table: Table, line: int, cell: str, column: int) -> tuple[float, bool]:
    """Return a time in its unit, or in seconds if it is a date; and whether it is a date."""
    try:
        if math.isfinite(value := float(cell)):
            return value, False
    except ValueError:
        try:
            moment = datetime.datetime.fromisoformat(cell)
            zone = moment.tzinfo or datetime.UTC
            return moment.replace(tzinfo=zone).timestamp(), True
        except ValueError:
            pass
    raise DataError(
        f"{table.path}, line {line}: the time {cell[:40]!r} in column {table.name(column)} is neither a number nor a "
        "date such as 2024-05-01T12:30:00."
    )


class Clock:
    """The times of all cases: they are sorted, and what is irregular about them is told."""

    def __init__(self) -> None:
        self._sorted = 0
        self._intervals: list[tuple[float, float, float, str]] = []  # smallest, median, largest of a case
        self._dates: set[bool] = set()

    def order(self, stamps: list[tuple[float, bool]], lines: list[int], where: str) -> Any:
        """Return the indices that sort the times of a case, or raise if two are equal."""
        times = np.array([time for time, _ in stamps])
        self._dates |= {date for _, date in stamps}
        if len(self._dates) > 1:
            raise DataError(f"{where}: some times are numbers, others dates. Write all of them alike.")
        order = np.argsort(times, kind="stable")
        steps = np.diff(times[order])
        if steps.size and steps.min() == 0:
            i = int(np.argmin(steps))
            first, second = sorted((lines[order[i]], lines[order[i + 1]]))
            raise DataError(
                f"{where}: lines {first} and {second} have the same time. Remove one, or take their mean; several "
                "channels belong into several columns."
            )
        self._sorted += bool((np.diff(times) < 0).any())
        if steps.size:
            self._intervals.append((float(steps.min()), float(np.median(steps)), float(steps.max()), where))
        return order

    def rate(self) -> float | None:
        """Return the steps per second if the times are dates at regular intervals."""
        if self._dates != {True} or not self._intervals or self._irregular():
            return None
        return 1 / self._intervals[0][1]

    def _irregular(self) -> list[tuple[float, float, float, str]]:
        usual = float(np.median([median for _, median, _, _ in self._intervals]))
        return [case for case in self._intervals if case[0] < 0.99 * usual or case[2] > 1.01 * usual]

    def notes(self) -> list[str]:
        """Return sentences about order and intervals."""
        found = []
        if self._sorted:
            found.append(f"The rows of {self._sorted} cases are not in the order of time; they are sorted.")
        irregular = self._irregular() if self._intervals else []
        if irregular:
            low, _, high, where = max(irregular, key=lambda case: case[2] / max(case[0], 1e-300))
            found.append(
                f"Warning: {len(irregular)} cases have irregular intervals ({where}: {low:g} to {high:g}). The model "
                "sees steps, not times. Resample the cases to one interval."
            )
        return found
