"""The sections of a page that compares runs."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from echograd import EchogradError
from echograd.plot import Theme

from ..training import Run
from ._curves import in_legend, valid_pairs
from ._format import count, duration, score
from ._html import isolated
from ._page import Page, draw
from ._pairs import Agreement, sign_test
from ._palette import line_styles

_SCORES = ("balanced_accuracy", "accuracy", "f1", "mae", "mse", "r2", "loss")
# More pairs than this are compared with the first run only.
_MOST_PAIRS = 15


@dataclasses.dataclass(frozen=True)
class Compared:
    """Runs with short names, in groups of equal settings.

    Attributes:
        runs: the runs.
        names: a short name for every run.
        settings: every setting of every run as text, by its dotted name.
        differing: names of the settings that differ.
        groups: indices of runs that differ at most in the seed, by the settings that the group has to itself.
    """

    runs: Sequence[Run]
    names: Sequence[str]
    settings: Sequence[dict[str, str]]
    differing: Sequence[str]
    groups: dict[str, list[int]]

    @staticmethod
    def of(runs: Sequence[Run]) -> "Compared":
        """Name and group the runs."""
        flat = [_flat(run.config.to_dict()) for run in runs]
        keys = list(dict.fromkeys(key for settings in flat for key in settings))
        differing = [key for key in keys if len({settings.get(key) for settings in flat}) > 1]
        groups: dict[str, list[int]] = {}
        for i, settings in enumerate(flat):
            own = [f"{key}={settings.get(key, '–')}" for key in differing if key != "seed"]
            groups.setdefault(", ".join(own) or "all runs", []).append(i)
        return Compared(runs, _names(runs), flat, differing, groups)

    @property
    def finished(self) -> list[int]:
        """Indices of the finished runs."""
        return [i for i, run in enumerate(self.runs) if run.finished]

    def predictions(self) -> dict[int, np.ndarray | str]:
        """Return the outputs for the test cases of every finished run, or why there are none."""
        found: dict[int, np.ndarray | str] = {}
        for i in self.finished:
            try:
                found[i] = self.runs[i].predict("test")
            except (EchogradError, OSError) as error:
                found[i] = str(error)
        return found


def _flat(values: dict[str, Any], path: str = "") -> dict[str, str]:
    made: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            made |= _flat(value, f"{path}{key}.")
        else:
            made[path + key] = "–" if value is None else f"{value}"
    return made


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the shortest ends of the paths that are different, with a number for a run that is given twice."""
    parts = [run.folder.resolve().parts for run in runs]
    names: list[str] = []
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def settings(page: Page, compared: Compared) -> None:
    """Write the settings that differ."""
    page.heading("What differs")
    if not compared.differing:
        page.text("All settings of the runs are equal, the seed too. On one machine the runs give equal numbers.")
        return
    page.text("The settings in which the runs differ. All other settings are equal.")
    rows = [
        [name, *(values.get(key, "–") for key in compared.differing)]
        for name, values in zip(compared.names, compared.settings, strict=True)
    ]
    page.table(["run", *compared.differing], rows, text=1 + len(compared.differing))


def scores(page: Page, compared: Compared) -> None:
    """Write the scores of every run, and of every group of runs that differ only in the seed."""
    page.heading("How well")
    unfinished = [name for i, name in enumerate(compared.names) if i not in compared.finished]
    if unfinished:
        page.text("Not finished, so without scores: ", isolated(", ".join(unfinished)), ".", kind="remark")
    if not compared.finished:
        return
    results = {i: compared.runs[i].results for i in compared.finished}
    known = [name for name in _SCORES if any(name in found["test"] for found in results.values())]
    heads = [name.replace("_", " ") for name in known]
    if any(len(members) > 1 for members in compared.groups.values()):
        rows = []
        for label, members in compared.groups.items():
            found = [results[i] for i in members if i in results]
            if not found:
                continue
            cells = [mean_and_deviation([one["test"].get(name) for one in found]) for name in known]
            time = duration(float(np.mean([one["seconds"] for one in found])))
            rows.append([label, f"{len(found)}", *cells, f"{found[0]['parameters']:,}", time])
        page.text(
            "Scores on the test cases: the mean over runs that differ only in the seed, ± their standard deviation "
            "(of the runs, with n − 1). Runs with other seeds show how much of a difference is chance."
        )
        page.table(["settings", "runs", *heads, "parameters", "training time"], rows)
    page.text("Every run by itself, on the test cases:")
    page.table(
        ["run", *heads, "parameters", "epochs", "training time"],
        [
            [
                compared.names[i],
                *(score(found["test"].get(name)) for name in known),
                f"{found['parameters']:,}",
                f"{found['epochs']}",
                duration(found["seconds"]),
            ]
            for i, found in results.items()
        ],
    )


def mean_and_deviation(values: Sequence[float | None]) -> str:
    """Return mean ± standard deviation of the runs; the deviation needs two of them."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "–"
    mean = score(float(np.mean(numbers)))
    return mean if len(numbers) == 1 else f"{mean} ± {np.std(numbers, ddof=1):.3f}"


def curves(page: Page, compared: Compared) -> None:
    """Draw the loss and the score that selects the model, of all runs; in training if a run has no validation."""
    histories = [run.history() for run in compared.runs]
    side = "validation" if all(row["validation"] for records in histories for row in records) else "train"
    said = {"validation": "on the validation cases", "train": "in training"}[side]
    metrics = ["loss"]
    for name in _SCORES[:-1]:
        if all(records and name in records[0][side] for records in histories):
            metrics.append(name)
            break
    if not any(histories):
        return
    page.heading("How they learned")
    page.figures(
        *(
            draw(
                f"compare-{metric}",
                lambda axes, colours, metric=metric: _paint(axes, colours, compared, histories, metric, side),
                caption=f"{metric.replace('_', ' ').capitalize()} {said} over the epochs. Runs that "
                "differ only in the seed have the same line; the dot is the last epoch."
                + (" The losses of runs with other data or class weights are not comparable." * (metric == "loss")),
                alt=f"{metric.replace('_', ' ').capitalize()} {said} of {len(compared.runs)} runs",
                height=3.0 + 0.17 * len(compared.groups),
            )
            for metric in metrics
        )
    )


def _paint(axes: Any, colours: Theme, compared: Compared, histories: Sequence[Any], metric: str, side: str) -> None:
    styles = line_styles(colours, len(compared.groups))
    for (label, members), style in zip(compared.groups.items(), styles, strict=True):
        name = compared.names[members[0]] if len(members) == 1 else label
        for member in members:
            points = [(row["epoch"], row[side].get(metric)) for row in histories[member]]
            points = [(x, y) for x, y in points if y is not None]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, **style, label=in_legend(name, 44))
                axes.plot(x[-1:], y[-1:], "o", color=style["color"], ms=3.5)
                name = "_"  # one entry in the legend for a group
    axes.set_title(f"{metric.replace('_', ' ').capitalize()} ({'training' if side == 'train' else side})")
    axes.set_xlabel("epoch")
    axes.grid(axis="y")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16))


def agreement(page: Page, compared: Compared, predictions: dict[int, np.ndarray | str]) -> None:
    """Write on how many test cases two runs agree."""
    usable = {i: found for i, found in predictions.items() if not isinstance(found, str)}
    page.heading("Case by case")
    for i, why in predictions.items():
        if isinstance(why, str):
            page.text(isolated(compared.names[i]), " is left out: ", isolated(why), kind="remark")
    first = next(iter(usable), None)
    if first is None:
        page.text("No run is finished and has its data, so there are no predictions to compare.")
        return
    # Test cases are the same ones if their inputs and targets are.
    test = compared.runs[first].dataset.test
    same = [
        i
        for i in usable
        if np.array_equal(compared.runs[i].dataset.test.targets, test.targets)
        and np.array_equal(compared.runs[i].dataset.test.lengths, test.lengths)
    ]
    other = [compared.names[i] for i in usable if i not in same]
    if other:
        page.text("Left out, because the test cases are others: ", isolated(", ".join(other)), ".", kind="remark")
    if len(same) < 2:
        page.text("There are no two finished runs on the same test cases.")
        return
    pairs = list(itertools.combinations(same, 2))
    if len(pairs) > _MOST_PAIRS:
        pairs = [(same[0], i) for i in same[1:]]
        page.text("Every run is compared with the first one.", kind="remark")
    if compared.runs[first].dataset.task == "regression":
        _closer(page, compared, usable, pairs)
        return
    right = {i: usable[i].argmax(1) == test.targets for i in same}
    known = np.sum([right[i] for i in same], 0)
    page.text(
        f"Of {count(len(known), 'test case')}, {np.sum(known == len(same)):,} are right in all {len(same)} runs and "
        f"{np.sum(known == 0):,} in none. The counts below are the evidence that one model is better: cases that both "
        "get right or both get wrong say nothing about it. McNemar's p is the probability of counts at least as "
        "uneven as “only A” and “only B” if both models are equally good. It says nothing about other seeds."
    )
    rows = []
    for a, b in pairs:
        found = Agreement.of(right[a], right[b])
        cells = (found.both, found.first, found.second, found.neither)
        rows.append([compared.names[a], compared.names[b], *(f"{n:,}" for n in cells), _chance(found.p_value)])
    page.table(["A", "B", "both right", "only A", "only B", "both wrong", "McNemar's p"], rows, text=2)


def _closer(page: Page, compared: Compared, usable: dict[int, np.ndarray], pairs: Sequence[tuple[int, int]]) -> None:
    errors = {}
    for i in {i for pair in pairs for i in pair}:
        truth, found = valid_pairs(compared.runs[i], usable[i])
        errors[i] = np.abs(found - truth)
    page.text(
        "How often the prediction of one run is closer to the true number than that of another. The p-value of the "
        "sign test is the probability of counts at least as uneven if both models are equally good."
    )
    rows = []
    for a, b in pairs:
        first, second = (int(np.sum(x < y)) for x, y in ((errors[a], errors[b]), (errors[b], errors[a])))
        rows.append(
            [compared.names[a], compared.names[b], f"{first:,}", f"{second:,}", _chance(sign_test(first, second))]
        )
    page.table(["A", "B", "A closer", "B closer", "p"], rows, text=2)


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"
