"""The section of a report that tells how to repeat it."""

import pprint

from ..training import Run
from ._html import isolated
from ._page import Page


def repeat(page: Page, run: Run, command: str | None) -> None:
    """Write how to reproduce the numbers."""
    page.heading("How to repeat it")
    config = pprint.pformat(run.config.to_dict(), sort_dicts=False, width=88)
    if command is not None:
        page.text("This command repeats everything:")
        page.code(command)
    page.text("In Python, for the training alone:")
    page.code(
        f"from echograd.workbench.training import Config, fit\n\nconfig = {config}\n"
        'fit(Config.from_dict(config), out="again")'
    )
    page.text(
        "The same machine and versions give the same numbers, bit for bit. Others may differ in the last digits, and "
        "training amplifies the difference. This run used "
        + ", ".join(f"{key} {value}" for key, value in run.versions.items())
        + "."
    )
    dataset = run.dataset
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    page.text(
        "Data: ",
        isolated(dataset.name),
        f", {sizes} cases. ",
        isolated(dataset.source),
        " Licence: ",
        isolated(dataset.licence),
        kind="remark",
    )
    first = dataset.description.split("\n- ")[0].strip()
    page.text(isolated(first), kind="remark")
