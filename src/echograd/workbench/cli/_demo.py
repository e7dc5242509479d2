"""`echograd demo`: check gradients, train on the bundled ECGs, and write a report."""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import tyro

from echograd import ArgumentError
from echograd._internal._files import make_folder, write_json

from .. import report
from ..data import load
from ..training import Config, Network, Run, ecg_recipe, fit
from ._check import Check, check_model
from ._main import FAILED
from ._signals import exit_code, told
from ._tables import console, for_shell, rich_table
from ._train import Show, Train, results

# This file marks a folder of the demo. The demo writes into no other folder that is not empty.
_MARK, _RUN = "demo.json", "run"
_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class Demo:
    """Learn heart rhythms from real ECGs by echoes, and write a report. Takes a little over a minute on two cores.

    First, the gradient by echo is compared with backprop, parameter by parameter, in float64. Then a model of two
    blocks is trained and tested on unseen patients. Last, a report is written. After Ctrl-C, the same command resumes.

    Attributes:
        out: folder for the report, its figures and the run; it must be new, empty, or a folder of the demo.
        quick: train a small model for one epoch, as a test of the installation.
    """

    out: pathlib.Path = pathlib.Path("demo")
    quick: bool = False


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = tyro.cli(Demo, args=argv, prog="echograd demo")
    config = ecg_recipe(epochs=1, network=Network(hidden=8, units=8)) if command.quick else ecg_recipe()
    arguments = (["--quick"] if command.quick else []) + (
        [] if command.out == Demo.out else ["--out", for_shell(command.out)]
    )
    return demonstrate(config, command.out, " ".join(["echograd demo", *arguments]), "Heart rhythms, learned by echoes")


def demonstrate(config: Config, folder: pathlib.Path, command: str, title: str) -> int:
    """Check gradients, train, and write a report; resume a run that is in the folder."""
    begun, out = time.monotonic(), console()
    _claim(folder, config)
    run = _begun(folder / _RUN)
    if run is None:
        out.print(f"The demo goes into {folder}", markup=False)
    elif run.finished:
        out.print(
            f"{folder} holds a finished demo. Its model is kept; gradients, memory and time are measured again, and "
            f"the report is written again. To train again, remove {folder} or choose another --out.",
            markup=False,
            soft_wrap=True,
        )
    else:
        out.print(
            f"{folder} holds a demo that was interrupted after {len(run.history())} epochs. It is resumed.",
            markup=False,
            soft_wrap=True,
        )
    try:
        with jax.enable_x64(True):
            check = Check(config.dataset, cases=2)  # the model is the config's
            config64 = dataclasses.replace(config, precision="float64")
            what, gradients = check_model(check, config64, load(config.dataset))
        exact = gradients.ok(_TOLERANCE)
        out.print(f"\n1. The gradient by echo against backprop, in float64: {what}", markup=False)
        out.print(rich_table(gradients.cells()))
        out.print(f"Largest relative error {gradients.worst:.1e}: {'exact' if exact else 'NOT EXACT'}.")

        out.print("\n2. Learning by echoes")
        if run is None or not run.finished:
            with Show(out, _as_command(config, folder / _RUN)) as show:
                run = fit(config, out=folder / _RUN, resume=run is not None, progress=show)
        results(out, run)

        out.print("\n3. The report")
        path = report.write(run, folder, title=title, command=command, say=lambda text: out.print(f"   {text} …"))
    except KeyboardInterrupt as stop:
        print(f"{told(stop)}. Resume with the same command: {command}", file=sys.stderr)
        return exit_code(stop)
    out.print(
        f"\nThe report is {path}; its figures are in {folder / 'figures'}. {time.monotonic() - begun:.0f} s in all.",
        markup=False,
        soft_wrap=True,
    )
    return 0 if exact else FAILED


def _claim(folder: pathlib.Path, config: Config) -> None:
    """Mark a new folder as one of the demo; raise if it has other files, or a demo with other settings."""
    mark, settings = folder / _MARK, config.to_dict()
    make_folder(folder, "Choose another --out, or remove the obstacle.")
    if mark.is_file():
        try:
            same = json.loads(mark.read_text(encoding="utf-8"))["config"] == settings
        except (ValueError, KeyError, TypeError, RecursionError):
            same = False
        if not same:
            raise ArgumentError(
                f"{folder} holds a demo with other settings (--quick, or of another version). Remove it, or choose "
                "another --out."
            )
        return
    if any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} exists and was not made by `echograd demo`, so nothing is written into it. Choose another --out."
        )
    write_json(mark, {"command": "echograd demo", "config": settings})


def _begun(folder: pathlib.Path) -> Run | None:
    """Return the run in the folder, or None."""
    try:
        return Run.open(folder)
    except FileNotFoundError:
        return None


def _as_command(config: Config, folder: pathlib.Path) -> Any:
    """Return the settings of `echograd train` for this run."""
    return Train(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)}, out=folder)
