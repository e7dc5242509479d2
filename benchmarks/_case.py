"""What is measured: cases, their contenders, and the program that a contender becomes."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax

Precision = Literal["float32", "float64"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem at one size, on which contenders take turns.

    Attributes:
        name: unique in its row.
        sizes: what `Row.build` makes it from; plain values.
        contenders: names of those that compete.
        base: the contender whose time is the unit of the ratios.
        dtype: of all numbers.
        reference: the contender whose timed result the results of the others are held against; `None`: agreement is
            measured apart, by `Row.apart`, or not at all.
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
        figures: what is known before the first run: `compile_s`, `temporary_mb`, and whatever else the row tells.
        result: picks from what `run` returned what contenders must agree on, by name: the errors of `gradient` become
            the figure `error`, those of any other thing `<thing>_error`. `None`: nothing.
    """

    run: Callable[[], Any]
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    result: Callable[[Any], dict[str, Any]] | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A kind of case.

    Attributes:
        name: of the row, its file and its section.
        title: heading of its section.
        about: what is measured, in Markdown.
        cases: `(quick, peers) -> cases`.
        build: `(case, contender) -> Program`, called in a process of its own, which finds the row as `ROW` in the
            module of this function.
        apart: `(case) -> {contender: figures}`: what is measured in a process that no timed contender lives in, errors
            and counts.
        shared: `(case) -> key`: cases of one key have the same figures `apart`.
    """

    name: str
    title: str
    about: str
    cases: Callable[[bool, dict[str, str]], list[Case]]
    build: Callable[[Case, str], Program]
    apart: Callable[[Case], dict[str, dict[str, Any]]] | None = None
    shared: Callable[[Case], Any] = lambda case: case.name


def compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Compile a function for arguments like these.

    Returns:
        What calls the compiled program, as cheaply as JAX can, and the figures of its compilation: `compile_s`, tracing
        included, and `temporary_mb`, what it allocates besides arguments and results.
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
    """Return what went wrong in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__
