"""Rows of cases, their contenders, and the program of a contender."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax

Precision = Literal["float32", "float64"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem at one size. Its contenders take turns.

    Attributes:
        name: name of the case, unique in its row.
        sizes: plain values from which `Row.build` makes the problem.
        contenders: names of the contenders.
        base: the contender whose time is the unit of the ratios.
        dtype: precision of all numbers.
        reference: the contender whose result is compared with those of the others; `None` if `Row.untimed` measures
            errors, or nothing does.
        peers: folders of published code by name.
    """

    name: str
    sizes: dict[str, Any]
    contenders: tuple[str, ...]
    base: str
    dtype: Precision = "float64"
    reference: str | None = None
    peers: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Program:
    """A contender, ready to run.

    Attributes:
        run: does the work once and returns its arrays.
        figures: figures known before the first run: `compile_s`, `temporary_mb`, and others of the row.
        result: takes the value of `run` and returns the quantities that contenders must agree on, by name. The error of
            `gradient` becomes the figure `error`, that of any other quantity `<quantity>_error`. `None` compares
            nothing.
    """

    run: Callable[[], Any]
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    result: Callable[[Any], dict[str, Any]] | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A series of cases with the same contenders: one file of results, and one section of the page.

    Attributes:
        name: name of the row and of its file.
        title: heading of its section.
        about: description of the measurement, in Markdown.
        cases: `(quick, peers) -> cases`.
        build: `(case, contender) -> Program`. It is called in the process of the contender, which finds the row as
            `ROW` in the module of this function.
        untimed: `(case) -> {contender: figures}`: errors and counts. They are measured in a separate process, so they
            do not disturb the timed contenders.
        shared: `(case) -> key`: cases with the same key have the same `untimed` figures.
    """

    name: str
    title: str
    about: str
    cases: Callable[[bool, dict[str, str]], list[Case]]
    build: Callable[[Case, str], Program]
    untimed: Callable[[Case], dict[str, dict[str, Any]]] | None = None
    shared: Callable[[Case], Any] = lambda case: case.name


def compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Compile a function for the shapes and dtypes of these arguments.

    Returns:
        A function that calls the compiled program with the least overhead, and the figures of its compilation:
        `compile_s` (with tracing), and `temporary_mb`, the memory that it allocates besides arguments and results.
    """
    _, static = eqx.partition(arguments, eqx.is_array)

    def of_arrays(arrays: Any) -> Any:
        return eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array)

    start = time.perf_counter()
    program = jax.jit(of_arrays).lower(eqx.filter(arguments, eqx.is_array)).compile()
    seconds = time.perf_counter() - start
    analysis: Any = program.memory_analysis()
    figures = {"compile_s": seconds, "temporary_mb": analysis.temp_size_in_bytes / 1e6}
    return lambda *arguments: program(eqx.filter(arguments, eqx.is_array)), figures


def complaint(error: BaseException) -> str:
    """Return class and message of an error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__
