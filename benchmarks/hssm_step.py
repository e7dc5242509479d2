"""One training step of an HSSM at published shapes: echo, backprop, and the published RHEL code beside them.

    python benchmarks/hssm_step.py [--shape scp1 worms ppg] [--peer PATH] [--repeats 5] [--out FILE.json]

`PATH` is a clone of github.com/guillaumepourcel/rhel. Every contender lives in a process of its own, so that peak
resident memory is its own, and they take their steps in turns, so that a change of load hits all of them. Random data,
float32, Adam, batch norm, dropout 0.05.

Reported: compilation (tracing included), median step (wall clock, and processor time of all threads), peak resident
memory, and compiled temporary memory. Then, in float64, at the full length but with two examples and two blocks: how
far gradients are from backpropagation through the same model, ours from our backprop, the published RHEL from the
published BPTT. The linear unit alone is compared with the time that it takes to copy its inputs, outputs and their
cotangents once.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Sizes published for SelfRegulationSCP1, EigenWorms and PPG-DaLiA.
SHAPES = {
    "scp1": {"batch": 32, "length": 896, "inputs": 7, "hidden": 64, "units": 256, "blocks": 6, "every": 0},
    "worms": {"batch": 4, "length": 17984, "inputs": 6, "hidden": 64, "units": 16, "blocks": 2, "every": 0},
    "ppg": {"batch": 4, "length": 49920, "inputs": 6, "hidden": 64, "units": 16, "blocks": 6, "every": 128},
    "small": {"batch": 4, "length": 256, "inputs": 3, "hidden": 16, "units": 16, "blocks": 2, "every": 0},
}
OURS = ("echo", "backprop")
PEERS = ("published RHEL", "published BPTT")
EXACT = {"echo": "backprop", "published RHEL": "published BPTT"}
SMALLER = {"batch": 2, "blocks": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["scp1", "worms", "ppg"])
    parser.add_argument("--peer", type=Path, help="clone of the published RHEL code")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--agreement", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender == "unit":
        print(json.dumps(unit_alone(arguments.shape[0], arguments.repeats)))
        return
    if arguments.agreement:
        print(json.dumps(agreement(arguments.shape[0], arguments.contender, arguments.peer)))
        return
    if arguments.contender:
        take_steps(arguments.shape[0], arguments.contender, arguments.peer)
        return
    if arguments.peer and not (arguments.peer / "models" / "LinHRU.py").exists():
        parser.error(f"{arguments.peer} holds no models/LinHRU.py: give the path of a clone of the published code")

    rows, units = [], []
    for shape in arguments.shape:
        rows += compare(shape, OURS + (PEERS if arguments.peer else ()), arguments.peer, arguments.repeats)
        units.append(child(shape, "unit", None, "--repeats", str(3 * arguments.repeats)))
    print(render(rows, units))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine(), "rows": rows, "unit_alone": units}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def compare(shape: str, contenders: tuple[str, ...], peer: Path | None, repeats: int) -> list[dict]:
    """Let the contenders take their steps in turns, and return a row for each."""
    processes, rows = {}, {}
    for name in contenders:
        processes[name] = subprocess.Popen(
            command(shape, name, peer), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        rows[name] = ask(processes[name], None)  # when it has compiled
        print(f"{shape}: {name} compiled in {rows[name]['compile_s']:.1f} s", file=sys.stderr, flush=True)
    for _ in range(repeats):
        for name in contenders:
            for key, value in ask(processes[name], "step").items():
                rows[name].setdefault(f"{key}_all", []).append(value)
    for name in contenders:
        rows[name] |= ask(processes[name], "end")
        processes[name].wait()
        for key in ("step_s", "cpu_s"):
            rows[name][key] = statistics.median(rows[name][f"{key}_all"])
    for name in set(contenders) & set(EXACT):
        rows[name] |= child(shape, name, peer, "--agreement")
    return list(rows.values())


def command(shape: str, contender: str, peer: Path | None) -> list[str]:
    words = [sys.executable, __file__, "--shape", shape, "--contender", contender]
    return words + (["--peer", str(peer)] if peer else [])


def child(shape: str, contender: str, peer: Path | None, *options: str) -> dict:
    """Return what this file answers in a process of its own."""
    done = subprocess.run([*command(shape, contender, peer), *options], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def ask(process: subprocess.Popen, request: str | None) -> dict:
    """Send a request to a contender and return its answer."""
    if request is not None:
        print(request, file=process.stdin, flush=True)
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise RuntimeError(f"a contender gave up; its complaint is above: {process.args}")
    return json.loads(line)


def render(rows: list[dict], units: list[dict]) -> str:
    lines = [
        "| shape | contender | compile s | step s | processor s | peak GB | temporary GB | gradient error (float64) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        error = f"{r['gradient_error']:.1e} (worst leaf {r['worst_leaf_error']:.1e})" if "gradient_error" in r else ""
        lines.append(
            f"| {r['shape']} | {r['contender']} | {r['compile_s']:.1f} | {r['step_s']:.3f} | {r['cpu_s']:.2f} "
            f"| {r['peak_gb']:.2f} | {r['temporary_gb']:.3f} | {error} |"
        )
    by_shape: dict[str, dict[str, dict]] = {}
    for r in rows:
        by_shape.setdefault(r["shape"], {})[r["contender"]] = r
    if any(peer in found for found in by_shape.values() for peer in PEERS):
        lines += ["", "| shape | echo against | step | peak memory | compilation |", "|---|---|---|---|---|"]
        for shape, found in by_shape.items():
            for peer in PEERS:
                if peer in found:
                    a, b = found["echo"], found[peer]
                    lines.append(
                        f"| {shape} | {peer} | {b['step_s'] / a['step_s']:.1f} × faster "
                        f"| 1/{b['peak_gb'] / a['peak_gb']:.1f} | 1/{b['compile_s'] / a['compile_s']:.1f} |"
                    )
    lines += ["", "| linear unit at | forward / copy | forward + echo / copy | copy GB/s |", "|---|---|---|---|"]
    for u in units:
        forward, gradient = u["forward_s"] / u["forward_copy_s"], u["gradient_s"] / u["gradient_copy_s"]
        lines.append(f"| {u['shape']} | {forward:.1f} | {gradient:.1f} | {u['copy_gb_per_s']:.1f} |")
    return "\n".join(lines)


def machine() -> dict:
    import jax

    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "dtype": "float32",
    }


def problem(contender: str, size: dict, peer: Path | None) -> tuple[Any, Any, Any, Any, Any]:
    """Return model, state, loss, inputs and targets."""
    import jax
    import jax.numpy as jnp

    x = jax.random.normal(jax.random.key(0), (size["batch"], size["length"], size["inputs"]))
    if size["every"]:
        y = jax.random.uniform(jax.random.key(3), (size["batch"], size["length"] // size["every"], 1))
    else:
        y = jnp.arange(size["batch"]) % 2
    if contender in OURS:
        return *our_model(contender, size), x, y
    sys.path.insert(0, str(peer))
    return *published_model(contender.split()[1], size), x, y


def agreement(shape: str, contender: str, peer: Path | None) -> dict:
    """Return how far a contender's gradient is from backpropagation, in float64."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    gradients = []
    for name in (contender, EXACT[contender]):
        model, state, loss, x, y = problem(name, SHAPES[shape] | SMALLER, peer)
        gradient = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(model, state, x, y, jax.random.key(1))[0]
        gradients.append({jax.tree_util.keystr(k): g for k, g in jax.tree_util.tree_leaves_with_path(gradient)})
    ours, exact = gradients
    errors = {k: float(jnp.linalg.norm(ours[k] - g) / jnp.linalg.norm(g)) for k, g in exact.items() if jnp.any(g != 0)}
    total = sum(float(jnp.sum(jnp.abs(g) ** 2)) for g in exact.values())
    return {
        "gradient_error": (sum(float(jnp.sum(jnp.abs(ours[k] - g) ** 2)) for k, g in exact.items()) / total) ** 0.5,
        "worst_leaf": max(errors, key=lambda k: errors[k]),
        "worst_leaf_error": max(errors.values()),
    }


def take_steps(shape: str, contender: str, peer: Path | None) -> None:
    """Compile a training step, then take one whenever asked to, on standard input and output."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    size, key = SHAPES[shape], jax.random.key(1)
    model, state, loss, x, y = problem(contender, size, peer)
    optimiser = optax.adam(1e-4)
    memory = optimiser.init(eqx.filter(model, eqx.is_inexact_array))
    traces = 0

    @eqx.filter_jit
    def step(model, state, memory, x, y, key):
        nonlocal traces
        traces += 1
        (value, state), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model, state, x, y, key)
        updates, memory = optimiser.update(gradient, memory)
        return eqx.apply_updates(model, updates), state, memory, value

    start = time.perf_counter()
    compiled = step.lower(model, state, memory, x, y, key).compile()
    answer = {"shape": shape, "contender": contender, "compile_s": time.perf_counter() - start, **size}
    answer["temporary_gb"] = compiled.compiled.memory_analysis().temp_size_in_bytes / 1e9
    model, state, memory, value = compiled(model, state, memory, x, y, key)
    jax.block_until_ready((model, value))
    print(json.dumps(answer), flush=True)
    for i, request in enumerate(sys.stdin):
        if request.strip() == "end":
            break
        start, busy = time.perf_counter(), os.times()
        model, state, memory, value = compiled(model, state, memory, x, y, jax.random.fold_in(key, i))
        jax.block_until_ready((model, value))
        seconds, done = time.perf_counter() - start, os.times()
        cpu = done.user + done.system - busy.user - busy.system
        print(json.dumps({"step_s": seconds, "cpu_s": cpu}), flush=True)
    if not jnp.isfinite(value):
        raise FloatingPointError(f"{contender} at {shape}: the loss is {value}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"peak_gb": peak, "loss": float(value), "traces": traces}), flush=True)


def our_model(name: str, size: dict) -> tuple[Any, Any, Any]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    import echograd as eg

    model, state = eqx.nn.make_with_state(eg.nn.HSSM)(
        size["inputs"],
        1 if size["every"] else 2,
        hidden=size["hidden"],
        units=size["units"],
        blocks=size["blocks"],
        norm="batch",
        dropout=0.05,
        head="regression" if size["every"] else "classification",
        every=size["every"] or 1,
        gradient=eg.Echo() if name == "echo" else eg.Backprop(),
        key=jax.random.key(2),
    )

    def loss(model, state, x, y, key):
        outputs, state = model(x, state, key=key)
        if size["every"]:
            return jnp.mean((outputs - y) ** 2), state
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(), state

    return model, state, loss


def published_model(algorithm: str, size: dict) -> tuple[Any, Any, Any]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    published = importlib.import_module("models.LinHRU")
    model, state = eqx.nn.make_with_state(published.LinHRU)(
        num_blocks=size["blocks"],
        N=size["inputs"],
        ssm_size=size["units"],
        H=size["hidden"],
        output_dim=1 if size["every"] else 2,
        classification=not size["every"],
        output_step=size["every"] or 1,
        learning_algorithm=algorithm,
        epsilon=0.1,
        complex_ssm=True,
        train_steps=True,
        nbr_dt=1,
        key=jax.random.key(2),
    )

    def loss(model, state, x, y, key):
        outputs, state = jax.vmap(model, axis_name="batch", in_axes=(0, None, None), out_axes=(0, None))(x, state, key)
        if size["every"]:
            return jnp.mean((outputs - y) ** 2), state
        return -jnp.mean(jnp.log(outputs[jnp.arange(size["batch"]), y] + 1e-8)), state

    return model, state, loss


def unit_alone(shape: str, repeats: int) -> dict:
    """Time a linear unit, forward and with its echo, against copying as many bytes as go in and out."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import echograd as eg

    size = SHAPES[shape]
    unit = eg.nn.LinearHRU(size["hidden"], size["hidden"], units=size["units"], key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (size["batch"], size["length"], size["hidden"]))
    bar = jnp.ones_like(x)
    gradient = eqx.filter_jit(lambda unit, x, bar: eqx.filter_vjp(lambda unit, x: unit(x), unit, x)[1](bar))
    forward = eqx.filter_jit(lambda unit, x: unit(x))
    copy = jax.jit(lambda x: x + 1)
    tasks = {
        "forward_s": lambda: forward(unit, x),
        "gradient_s": lambda: gradient(unit, x, bar),
        "copy_s": lambda: copy(x),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            jax.block_until_ready(task())
            if i:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t) for name, t in times.items()}
    # In and out go x and y; with the echo also their cotangents.
    copied = medians.pop("copy_s")
    medians |= {"forward_copy_s": copied, "gradient_copy_s": 2 * copied, "copy_gb_per_s": 2 * x.nbytes / copied / 1e9}
    return {"shape": shape, **medians}


if __name__ == "__main__":
    main()
