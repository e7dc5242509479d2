"""`echograd train`: train a model on a data set, or resume a run."""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from echograd import ArgumentError

from ..data import DataError, load
from ..training import Config, Run, fit, join
from ..training._processes import is_first
from ..training._trainer import Progress
from ._signals import exit_code, told
from ._tables import confusion_table, console, for_shell, kind, metrics_table


@dataclasses.dataclass(frozen=True)
class Train(Config):
    """Train a state-space model of oscillators, or a Hopfield network, on a data set: by echoes or by backprop.

    The folder of the run holds its settings, metrics with one line an epoch, checkpoints, and the results of the best
    model on the test cases. After Ctrl-C, a crash or a full disk, the same command with --resume continues the run and
    gives the same numbers as an uninterrupted run.

    Attributes:
        dataset: name of the data set; `echograd datasets` lists them.
        out: folder of the run; by default runs/DATASET-MODEL-GRADIENT-seedSEED.
        resume: continue the run in the folder, with its settings.
        config: JSON file with settings, such as the config.json of a run. Options on the command line override it.
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
    config: pathlib.Path | None = None
    checkpoint_minutes: float = 5.0
    devices: int = 1
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    quiet: bool = False

    def plain(self) -> Config:
        """Return the settings of the run, without those of the command."""
        return Config(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Config)})

    def folder(self) -> pathlib.Path:
        """Return the folder of the run."""
        name = f"{self.dataset}-{self.model}-{self.gradient}-seed{self.seed}"
        return pathlib.Path("runs") / name if self.out is None else self.out


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
    if known.resume and known.out is not None:
        command = _parse(argv, _run_config(known.out))
    else:
        command = _parse(argv, None if known.config is None else _file_config(known.config))
        if command.resume:
            command = _parse(argv, _run_config(command.folder()))
    return _train(command)


def _parse(argv: Sequence[str], default: Config | None) -> Train:
    options: dict[str, Any] = {"args": argv, "prog": "echograd train", "config": (tyro.conf.OmitArgPrefixes,)}
    if default is not None:
        fields = {field.name: getattr(default, field.name) for field in dataclasses.fields(Config)}
        options["default"] = Train(**fields)
    return tyro.cli(Train, **options)


def _run_config(folder: pathlib.Path) -> Config:
    try:
        return Run.open(folder).config
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no training run to resume. Leave out --resume to begin one.") from None


def _file_config(path: pathlib.Path) -> Config:
    try:
        return Config.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be read ({error.strerror}). Pass a file of settings.") from error
    except RecursionError:
        raise DataError(f"{path} does not hold settings: it is nested too deep.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} does not hold settings in JSON ({error}).") from error
    except ValueError as error:  # a wrong setting, bytes that are not UTF-8, an integer with too many digits
        raise DataError(f"{path}: {error}") from error


def _train(command: Train) -> int:
    if command.coordinator is not None:
        join(command.coordinator, command.processes, command.process)
    elif command.processes is not None or command.process is not None:
        raise ArgumentError("--processes and --process need --coordinator, the address of process 0: host:port.")
    if not is_first():
        command = dataclasses.replace(command, quiet=True)
    out, folder = console(), command.folder()
    dataset = load(command.dataset)
    show = Show(out, command)
    try:
        with show:
            run = fit(
                command.plain(),
                dataset,
                out=folder,
                resume=command.resume,
                progress=show,
                checkpoint_minutes=command.checkpoint_minutes,
                devices=command.devices,
            )
    except KeyboardInterrupt as stop:
        begun = (folder / "config.json").is_file()
        resume = f"Resume with: echograd train --resume --out {for_shell(folder)}"
        remedy = resume if begun else "Training had not begun."
        print(f"{told(stop)}. {remedy}", file=sys.stderr)
        return exit_code(stop)
    if is_first():
        results(out, run)
    return 0


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
    """Prints the progress of a run: one line an epoch, and a progress bar on a terminal."""

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
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def __call__(self, now: Progress) -> None:
        done = (now.epoch - 1) * now.batches + now.batch
        text = f"epoch {now.epoch}/{now.epochs}, loss {now.loss:.3f}"
        self.bar.update(self.task, description=text, completed=done, total=now.epochs * now.batches)
        if now.record is not None and not self.command.quiet:
            self.line(now, now.record)

    def line(self, now: Progress, record: dict[str, Any]) -> None:
        validation = record["validation"]
        names = ("loss", "balanced_accuracy", "f1") if "f1" in validation else ("loss", "mae", "r2")
        if not self.headed:
            titles = {"loss": "loss", "balanced_accuracy": "bal. acc.", "f1": "F1", "mae": "MAE", "r2": "R²"}
            heads = "".join(titles[name].rjust(11) for name in names)
            self.out.print(f"{'':8}{'training':>11}  validation\n{'epoch':>8}{'loss':>11}{heads}{'seconds':>11}")
            self.headed = True
        numbers = "".join(f"{validation[name]:11.3f}" for name in names)
        mark = "  best" if now.best else ""
        self.out.print(f"{now.epoch:8}{record['train']['loss']:11.3f}{numbers}{record['seconds']:11.1f}{mark}")
