"""One training step of an `HSSM` at published shapes, beside published code."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from echograd import ArgumentError
from echograd.gradients import Backprop, Echo, Reciprocal
from echograd.nn import HSSM

from ._case import Case, Program, Row, compiled, complaint

ABOUT = """
One training step of an `HSSM` at the shapes published for SelfRegulationSCP1, EigenWorms and PPG-DaLiA: random data,
Adam, batch norm, dropout 0.05. Published code comes from clones given by `--peer`: RHEL and BPTT of
github.com/guillaumepourcel/rhel, and LinOSS (IMEX, BPTT) of github.com/tk-rusch/linoss. Errors are measured in float64
at the full length, with two examples and two blocks, relative to backpropagation through the same model: our echo to
our backprop, the published RHEL to the published BPTT.
"""

SHAPES: dict[str, dict[str, int]] = {
    "scp1": {"batch": 32, "length": 896, "inputs": 7, "hidden": 64, "units": 256, "blocks": 6, "every": 0},
    "worms": {"batch": 4, "length": 17984, "inputs": 6, "hidden": 64, "units": 16, "blocks": 2, "every": 0},
    "ppg": {"batch": 4, "length": 49920, "inputs": 6, "hidden": 64, "units": 16, "blocks": 6, "every": 128},
    "small": {"batch": 2, "length": 64, "inputs": 3, "hidden": 8, "units": 8, "blocks": 2, "every": 0},
}
# Units and gradients of our contenders, of this row and of the row of damped units.
OURS = {
    "echo": ("linear", Echo()),
    "backprop": ("linear", Backprop()),
    "linear": ("linear", Echo()),
    "damped": ("damped", Reciprocal()),
    "damped, backprop": ("damped", Backprop()),
}
# A file that identifies a clone, and the contenders of this clone.
PEERS = {
    "rhel": ("models/LinHRU.py", ("published RHEL", "published BPTT")),
    "linoss": ("models/LinOSS.py", ("published LinOSS",)),
    "damped-linoss": ("src/damped_linoss/models/LinOSS.py", ("published D-LinOSS",)),
}
EXACT = {"echo": "backprop", "damped": "damped, backprop", "published RHEL": "published BPTT"}
SMALLER = {"batch": 2, "blocks": 2}


def find_peers(folders: list[Path]) -> dict[str, str]:
    """Return the folders of published code by its name.

    Raises:
        ArgumentError: a folder does not hold known published code.
    """
    found = {}
    for folder in folders:
        names = [name for name, (file, _) in PEERS.items() if (folder / file).is_file()]
        if not names:
            files = " or ".join(file for file, _ in PEERS.values())
            raise ArgumentError(f"{folder} holds no {files}. Pass the path of a clone of the published code.")
        found |= {name: str(folder.resolve()) for name in names}
    return found


def cases(quick: bool, peers: dict[str, str]) -> list[Case]:
    """Return all published shapes."""
    contenders = ("echo", "backprop", *published_of(peers, "rhel", "linoss"))
    return [
        Case(shape, SHAPES[shape], contenders, base="echo", dtype="float32", peers=peers)
        for shape in (("small",) if quick else ("scp1", "worms", "ppg"))
    ]


def published_of(peers: dict[str, str], *names: str) -> list[str]:
    """Return the contenders of the named clones that are there."""
    return [contender for name in names if name in peers for contender in PEERS[name][1]]


def build(case: Case, contender: str) -> Program:
    """Compile a training step; each run continues from the state of the last one."""
    optax: Any = importlib.import_module("optax")
    model, state, loss, x, y = problem(contender, case.sizes, case.peers)
    optimiser = optax.adam(1e-4)

    def step(model: Any, state: Any, moments: Any, x: Any, y: Any, key: Any) -> Any:
        (value, state), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model, state, x, y, key)
        updates, moments = optimiser.update(gradient, moments)
        return eqx.apply_updates(model, updates), state, moments, value

    arrays, static = eqx.partition((model, state), eqx.is_array)
    carry = (*arrays, optimiser.init(eqx.filter(model, eqx.is_inexact_array)))
    program, figures = compiled(
        lambda a, b, moments, x, y, key: step(*eqx.combine((a, b), static), moments, x, y, key),
        *(*carry, x, y, jax.random.key(1)),
    )
    keys = iter(range(1, 1_000_000))

    def run() -> Any:
        nonlocal carry
        *after, value = program(*carry, x, y, jax.random.key(next(keys)))
        carry = tuple(after)
        return *carry, value

    return Program(run, figures)


def measure_errors(case: Case) -> dict[str, dict[str, Any]]:
    """Return the errors of gradients relative to backpropagation, in float64."""
    found = {}
    with jax.enable_x64(True):
        for name in set(case.contenders) & set(EXACT):
            try:
                ours, exact = (_gradient(one, case.sizes | SMALLER, case.peers) for one in (name, EXACT[name]))
            except Exception as error:
                found[name] = {"agreement_failed": complaint(error)}
                continue
            errors = {k: _norm([ours[k] - g]) / _norm([g]) for k, g in exact.items() if np.any(g)}
            worst = max(errors, key=lambda k: errors[k])
            found[name] = {
                "error": _norm([ours[k] - g for k, g in exact.items()]) / _norm(list(exact.values())),
                "error_against": EXACT[name],
                "worst_leaf": worst,
                "worst_leaf_error": errors[worst],
            }
    return found


def _gradient(contender: str, size: dict[str, int], peers: dict[str, str]) -> dict[str, np.ndarray]:
    model, state, loss, x, y = problem(contender, size, peers)
    gradient = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(model, state, x, y, jax.random.key(1))[0]
    return {jax.tree_util.keystr(k): np.asarray(g) for k, g in jax.tree_util.tree_leaves_with_path(gradient)}


def _norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(np.abs(array) ** 2) for array in arrays)))


def problem(contender: str, size: dict[str, int], peers: dict[str, str]) -> tuple[Any, Any, Any, Any, Any]:
    """Return model, state, loss, inputs and targets."""
    x = jax.random.normal(jax.random.key(0), (size["batch"], size["length"], size["inputs"]))
    if size["every"]:
        y = jax.random.uniform(jax.random.key(3), (size["batch"], size["length"] // size["every"], 1))
    else:
        y = jnp.arange(size["batch"]) % 2
    if contender in OURS:
        return *ours(contender, size), x, y
    (peer,) = (name for name, (_, contenders) in PEERS.items() if contender in contenders)
    return *published(peer, contender, size, peers[peer]), x, y


def ours(name: str, size: dict[str, int]) -> tuple[Any, Any, Callable[..., Any]]:
    """Return our model, its state and its loss."""
    optax: Any = importlib.import_module("optax")
    unit, gradient = OURS[name]
    model, state = eqx.nn.make_with_state(HSSM)(
        size["inputs"],
        1 if size["every"] else 2,
        hidden=size["hidden"],
        units=size["units"],
        blocks=size["blocks"],
        unit=unit,
        norm="batch",
        dropout=0.05,
        head="regression" if size["every"] else "classification",
        every=size["every"] or 1,
        gradient=gradient,
        key=jax.random.key(2),
    )

    def loss(model: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
        outputs, state = model(x, state, key=key)
        if size["every"]:
            return jnp.mean((outputs - y) ** 2), state
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(), state

    return model, state, loss


def published(peer: str, contender: str, size: dict[str, int], folder: str) -> tuple[Any, Any, Callable[..., Any]]:
    """Return a published model, its state and its loss."""
    *above, package, file = Path(PEERS[peer][0]).with_suffix("").parts
    root, name = (
        (str(Path(folder, above[0])), f"{above[1]}.{package}.{file}") if above else (folder, f"{package}.{file}")
    )
    # Two of the repositories call their package `models`.
    sys.path.insert(0, root)
    for loaded in [key for key in sys.modules if key == "models" or key.startswith("models.")]:
        del sys.modules[loaded]
    try:
        module = importlib.import_module(name)
    finally:
        sys.path.remove(root)
    options: dict[str, Any] = {
        "num_blocks": size["blocks"],
        "output_dim": 1 if size["every"] else 2,
        "classification": not size["every"],
        "output_step": size["every"] or 1,
    }
    if peer == "damped-linoss":
        options |= {"layer_name": "DampedIMEX1", "input_dim": size["inputs"], "state_dim": size["units"]}
        options |= {"hidden_dim": size["hidden"], "tanh_output": False, "drop_rate": 0.05, "initialization": "uniform"}
        options |= {"r_min": 0.9, "r_max": 1.0, "theta_min": 0.0, "theta_max": 3.14, "dt_std": 0.5}
        options |= {"A_min": 0.0, "A_max": 1.0, "G_min": 0.0, "G_max": 1.0}
    else:
        options |= {"N": size["inputs"], "ssm_size": size["units"], "H": size["hidden"]}
    if peer == "rhel":
        options |= {"learning_algorithm": contender.split()[1], "epsilon": 0.1, "complex_ssm": True}
        options |= {"train_steps": True, "nbr_dt": 1}
    elif peer == "linoss":
        options |= {"discretization": "IMEX"}
    model, state = eqx.nn.make_with_state(getattr(module, file))(**options, key=jax.random.key(2))

    def loss(model: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
        batched = jax.vmap(model, axis_name="batch", in_axes=(0, None, None), out_axes=(0, None))
        outputs, state = batched(x, state, key)
        if size["every"]:
            return jnp.mean((outputs - y) ** 2), state
        return -jnp.mean(jnp.log(outputs[jnp.arange(size["batch"]), y] + 1e-8)), state

    return model, state, loss


ROW = Row("sequence", "Training steps of sequence models", ABOUT, cases, build, measure_errors)
