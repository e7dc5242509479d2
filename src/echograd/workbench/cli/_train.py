"""`echograd train`: train a model on a data set, or resume a run."""

import argparse
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from echograd import ArgumentError

from ..data import DataError, Dataset
from ..data._own import name_of
from ..training import Config, Run, Seeds, fit, fit_seeds, join, recipe
from ..training._processes import is_first
from ..training._trainer import Progress
from ._own import OwnData, told
from ._signals import exit_code, told as told_stop
from ._tables import TITLES, confusion_table, console, for_shell, kind, metrics_table, number

_LINES = 50  # with at least twice as many epochs, not every epoch has a line


@dataclasses.dataclass(frozen=True)
class Train(OwnData, Config):
    """Train a state-space model of oscillators, or a Hopfield network, on a data set: by echoes or by backprop.

    The folder of the run holds its settings, metrics with one line an epoch, checkpoints, and the results of the best
    model on the test cases. After Ctrl-C, a crash or a full disk, the same command with --resume continues the run and
    gives the same numbers as an uninterrupted run.

    The data set may be your own file or folder; `echograd datasets formats` shows what can be read. Settings that you
    do not give are those of a recipe for the data set (--recipe); the defaults listed here are those of "plain".

    Attributes:
        dataset: name of the data set (`echograd datasets` lists them), or a path to your own file or folder.
        out: folder of the run; by default runs/DATASET-MODEL-GRADIENT-seedSEED.
        resume: continue the run in the folder, with its settings.
        recipe: settings that you do not give: "auto" chooses them for the data set, "plain" takes the defaults listed
            here.
        config: JSON file with settings, such as the config.json of a run. Options on the command line override it.
        seeds: train this many models, with seeds SEED, SEED+1 and so on, into OUT/seed0 and so on; print mean and
            standard deviation of their scores, and the scores of their ensemble.
        checkpoint_minutes: write a checkpoint at least this often within an epoch.
        devices: number of local devices, of every process, that share every batch.
        coordinator: train in several processes, on one or many machines; start each with this command and the same
            options. The address of process 0, host:port with a free port, or "auto" if the cluster provides it.
            Process 0 writes the folder; all processes must be able to read it.
        processes: with a coordinator, the number of processes.
        process: with a coordinator, the index of this process, from 0.
        quiet: print the results only.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    out: pathlib.Path | None = None
    resume: bool = False
    recipe: Literal["auto", "plain"] = "auto"
    config: pathlib.Path | None = None
    seeds: int | None = None
    checkpoint_minutes: float = 5.0
    devices: int = 1
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    quiet: bool = False

    def plain(self) -> Config:
        """Return the settings of the run, without those of the command."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(Config)}
        return Config(**{**values, "dataset": name_of(self.dataset)})

    def folder(self) -> pathlib.Path:
        """Return the folder of the run, or of the runs with several seeds."""
        seed = f"seed{self.seed}" if self.seeds is None else f"{self.seeds}seeds"
        name = f"{name_of(self.dataset)}-{self.model}-{self.gradient}-{seed}"
        return pathlib.Path("runs") / name if self.out is None else self.out


class _Unchecked(Train):
    # The command before the recipe is known, so settings cannot yet be compared with those that are not given.
    __doc__ = Train.__doc__

    def __post_init__(self) -> None:
        """Check nothing."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--out", type=pathlib.Path)
    first.add_argument("--config", type=pathlib.Path)
    first.add_argument("--resume", action="store_true")
    try:
        known, _ = first.parse_known_args(argv)
    except argparse.ArgumentError:  # the full parser reports it
        _parse(argv, None)
        raise
    origin = None
    if known.resume and known.out is not None:
        command, origin = _resumed(argv, known.out)
    elif known.config is not None:
        config, origin = _file_config(known.config)
        command = _parse(argv, config)
    else:
        begun = _parse(argv, None, _Unchecked)
        _connect(begun)
        dataset = begun.read(begun.dataset)
        chosen = {"model": begun.model} if any(word.partition("=")[0] == "--model" for word in argv) else {}
        command = _parse(argv, Config(dataset.name) if begun.recipe == "plain" else recipe(dataset, **chosen))
        if not command.resume:
            if not command.quiet and is_first():
                name = "for this data set" if command.recipe == "auto" else "of plain defaults"
                console().print(
                    f"Settings that are not given: recipe {name} (--recipe {command.recipe}).", markup=False
                )
            return _train(command, dataset)
    if command.resume and known.out is None:
        command, origin = _resumed(argv, command.folder())
    _connect(command)
    return _train(command, command.read(command.dataset, origin))


def _parse(argv: Sequence[str], default: Config | None, kind: type[Train] = Train) -> Train:
    options: dict[str, Any] = {"args": argv, "prog": "echograd train", "config": (tyro.conf.OmitArgPrefixes,)}
    if default is not None:
        fields = {field.name: getattr(default, field.name) for field in dataclasses.fields(Config)}
        options["default"] = kind(**fields)
    return tyro.cli(kind, **options)


def _resumed(argv: Sequence[str], folder: pathlib.Path) -> tuple[Train, dict[str, Any] | None]:
    """Return the command with the settings of the run in a folder, and how its own files were read."""
    seeds = sorted(folder.glob("seed*/config.json"), key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    try:
        run = Run.open(seeds[0].parent if seeds else folder)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no training run to resume. Leave out --resume to begin one.") from None
    command = _parse(argv, run.config)
    if seeds and command.seeds is None:
        raise ArgumentError(
            f"{folder} holds runs with {len(seeds)} seeds. Pass their number (--seeds N) to resume them."
        )
    return command, run.origin


def _file_config(path: pathlib.Path) -> tuple[Config, dict[str, Any] | None]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = Config.from_dict(values)
        data = values.get("data")
        return config, data.get("origin") if isinstance(data, dict) else None
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be read ({error.strerror}). Pass a file of settings.") from error
    except RecursionError:
        raise DataError(f"{path} does not hold settings: it is nested too deep.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} does not hold settings in JSON ({error}).") from error
    except ValueError as error:  # a wrong setting, bytes that are not UTF-8, an integer with too many digits
        raise DataError(f"{path}: {error}") from error


def _connect(command: Train) -> None:
    """Join the other processes, before any computation."""
    if command.coordinator is not None:
        join(command.coordinator, command.processes, command.process)
    elif command.processes is not None or command.process is not None:
        raise ArgumentError("--processes and --process need --coordinator, the address of process 0: host:port.")


def _train(command: Train, dataset: Dataset) -> int:
    if not is_first():
        command = dataclasses.replace(command, quiet=True)
    out, folder = console(), command.folder()
    if not command.quiet:
        told(out, dataset)
    show, config = Show(out, command), dataclasses.replace(command.plain(), dataset=dataset.name)
    options: dict[str, Any] = {
        "out": folder,
        "resume": command.resume,
        "progress": show,
        "checkpoint_minutes": command.checkpoint_minutes,
        "devices": command.devices,
    }
    try:
        with show:
            if command.seeds is None:
                found = fit(config, dataset, **options)
            else:
                found = fit_seeds(config, dataset, seeds=command.seeds, begin=show.begin, **options)
    except KeyboardInterrupt as stop:
        begun = any(folder.glob("seed*/config.json")) or (folder / "config.json").is_file()
        seeds = "" if command.seeds is None else f" --seeds {command.seeds}"
        resume = f"Resume with: echograd train --resume --out {for_shell(folder)}{seeds}"
        remedy = resume if begun else "Training had not begun."
        print(f"{told_stop(stop)}. {remedy}", file=sys.stderr)
        return exit_code(stop)
    if is_first() and isinstance(found, Run):
        results(out, found)
    elif is_first() and isinstance(found, Seeds):
        several(out, found, folder)
    return 0


def several(out: Console, found: Seeds, folder: pathlib.Path) -> None:
    """Print the scores of runs with several seeds."""
    rows = {f"seed {run.config.seed}": run.results["test"] for run in found.runs}
    rows["ensemble"] = found.summary["ensemble"]
    out.print(f"\nOn the {len(found.runs[0].dataset.test)} test cases:")
    out.print(metrics_table(rows))
    for name, spread in found.summary["test"].items():
        out.print(f"{TITLES.get(name, name)}: {number(spread['mean'])} ± {number(spread['sd'])}", markup=False)
    out.print(f"(mean ± standard deviation over seeds) The runs are in {folder}", markup=False, soft_wrap=True)


def results(out: Console, run: Run) -> None:
    """Print the results of a finished run."""
    found = run.results
    constant = "majority" if "majority" in found else "mean"
    rows = {f"best model, epoch {found['best_epoch']}": found["test"], f"{constant} baseline": found[constant]}
    out.print(f"\nOn the {len(run.dataset.test)} test cases:")
    out.print(metrics_table(rows))
    if found["classes"]:
        out.print(confusion_table(found["test"]["confusion"], found["classes"]))
    trained = f"{found['parameters']:,} parameters, {found['seconds']:.0f} s of training."
    out.print(f"{trained} The run is in {run.folder}", markup=False, soft_wrap=True)


class Show:
    """Prints the progress of a run: one line an epoch (of many epochs only some), and a progress bar on a terminal."""

    def __init__(self, out: Console, command: Train) -> None:
        self.out, self.command = out, command
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn())
        self.bar = Bar(*columns, console=out, transient=True, disable=command.quiet or not out.is_terminal)
        self.task = self.bar.add_task("compiling", total=None)
        self.headed = False

    def __enter__(self) -> "Show":
        if not self.command.quiet:
            c = self.command
            what = f"{kind(c.model)}, {c.gradient} gradients, {c.precision}, seed {c.seed}"
            self.out.print(f"{c.dataset}: {what} → {c.folder()}", markup=False, soft_wrap=True)
            n, rate = c.network, c.optimiser.learning_rate
            sizes = f"{n.blocks} blocks of {n.units} units" + ("" if c.model == "hopfield" else f", hidden {n.hidden}")
            epochs = f"at most {c.epochs} epochs, batches of {c.batch_size}, learning rate {rate:g}"
            self.out.print(f"Settings: {sizes}; {epochs}.", markup=False, soft_wrap=True)
        self.bar.start()
        return self

    def begin(self, config: Config) -> None:
        """Announce the next of several runs."""
        self.headed = False
        if not self.command.quiet:
            self.out.print(f"\nseed {config.seed}", markup=False)

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def __call__(self, now: Progress) -> None:
        done = (now.epoch - 1) * now.batches + now.batch
        text = f"epoch {now.epoch}/{now.epochs}, loss {now.loss:.3f}"
        self.bar.update(self.task, description=text, completed=done, total=now.epochs * now.batches)
        every = max(now.epochs // _LINES, 1)
        if now.record is not None and not self.command.quiet and (now.epoch % every == 0 or now.epoch == 1):
            self.line(now, now.record)

    def line(self, now: Progress, record: dict[str, Any]) -> None:
        validation = record["validation"]
        names = ("loss", "balanced_accuracy", "f1") if "f1" in record["train"] else ("loss", "mae", "r2")
        if not self.headed:
            titles = {"loss": "loss", "balanced_accuracy": "bal. acc.", "f1": "F1", "mae": "MAE", "r2": "R²"}
            heads = "".join(titles[name].rjust(11) for name in names)
            self.out.print(f"{'':8}{'training':>11}  validation\n{'epoch':>8}{'loss':>11}{heads}{'seconds':>11}")
            self.headed = True
        numbers = "".join(f"{validation[name]:11.3f}" if validation else f"{'-':>11}" for name in names)
        mark = "  best" if now.best and validation else ""
        self.out.print(f"{now.epoch:8}{record['train']['loss']:11.3f}{numbers}{record['seconds']:11.1f}{mark}")
