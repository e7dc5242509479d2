"""One training step of an HSSM at published shapes: echo, backprop, and the published RHEL code beside them.

    python benchmarks/hssm_step.py [--shape scp1 worms] [--peer PATH] [--repeats 5] [--out FILE.json]

`PATH` is a clone of github.com/guillaumepourcel/rhel. Every contender runs in a process of its own, one after the
other, so that peak resident memory is its own; all are timed in the same call. Random data, float32, Adam, batch norm,
dropout 0.05. Reported: compilation (tracing included), median step, peak resident memory, and compiled temporary
memory.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

# batch, length, inputs, hidden, units, blocks: as published for SelfRegulationSCP1 and EigenWorms
SHAPES = {
    "scp1": {"batch": 32, "length": 896, "inputs": 7, "hidden": 64, "units": 256, "blocks": 6},
    "worms": {"batch": 4, "length": 17984, "inputs": 6, "hidden": 64, "units": 16, "blocks": 2},
    "small": {"batch": 4, "length": 256, "inputs": 3, "hidden": 16, "units": 16, "blocks": 2},
}
OURS = ("echo", "backprop")
PEERS = ("published RHEL", "published BPTT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["scp1", "worms"])
    parser.add_argument("--peer", type=Path, help="clone of the published RHEL code")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(measure(arguments.shape[0], arguments.contender, arguments.peer, arguments.repeats)))
        return
    if arguments.peer and not (arguments.peer / "models" / "LinHRU.py").exists():
        parser.error(f"{arguments.peer} holds no models/LinHRU.py: give the path of a clone of the published code")

    rows = []
    for shape in arguments.shape:
        for contender in OURS + (PEERS if arguments.peer else ()):
            command = [sys.executable, __file__, "--shape", shape, "--contender", contender]
            command += ["--repeats", str(arguments.repeats)]
            command += ["--peer", str(arguments.peer)] if arguments.peer else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{shape} {contender} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
                continue
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(render(rows[-1:], header=len(rows) == 1), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def render(rows: list[dict], header: bool = True) -> str:
    lines = ["| shape | contender | compile s | step s | peak GB | temporary GB |", "|---|---|---|---|---|---|"]
    lines = lines if header else []
    for r in rows:
        lines.append(
            f"| {r['shape']} | {r['contender']} | {r['compile_s']:.1f} | {r['step_s']:.3f} | {r['peak_gb']:.2f} "
            f"| {r['temporary_gb']:.3f} |"
        )
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


def measure(shape: str, contender: str, peer: Path | None, repeats: int) -> dict:
    import resource

    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    size = SHAPES[shape]
    x = jax.random.normal(jax.random.key(0), (size["batch"], size["length"], size["inputs"]))
    y = jnp.arange(size["batch"]) % 2
    key = jax.random.key(1)
    if contender in OURS:
        model, state, loss = our_model(contender, size)
        x = jnp.moveaxis(x, 0, 1)
    else:
        sys.path.insert(0, str(peer))
        model, state, loss = published_model(contender.split()[1], size)
    optimiser = optax.adam(1e-4)
    memory = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, memory, x, y, key):
        (value, state), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model, state, x, y, key)
        updates, memory = optimiser.update(gradient, memory)
        return eqx.apply_updates(model, updates), state, memory, value

    start = time.perf_counter()
    compiled = step.lower(model, state, memory, x, y, key).compile()
    compile_s = time.perf_counter() - start
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        model, state, memory, value = compiled(model, state, memory, x, y, jax.random.fold_in(key, i))
        jax.block_until_ready((model, value))
        times.append(time.perf_counter() - start)
    if not jnp.isfinite(value):
        raise FloatingPointError(f"{contender} at {shape}: the loss is {value}")
    return dict(
        shape=shape,
        contender=contender,
        compile_s=compile_s,
        step_s=statistics.median(times[1:]),
        steps_s=times,
        peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        temporary_gb=compiled.compiled.memory_analysis().temp_size_in_bytes / 1e9,
        loss=float(value),
        **size,
    )


def our_model(name: str, size: dict) -> tuple:
    import equinox as eqx
    import jax
    import optax

    import echograd as eg

    model, state = eqx.nn.make_with_state(eg.nn.HSSM)(
        size["inputs"],
        2,
        hidden=size["hidden"],
        units=size["units"],
        blocks=size["blocks"],
        norm="batch",
        dropout=0.05,
        gradient=eg.Echo() if name == "echo" else eg.Backprop(),
        key=jax.random.key(2),
    )

    def loss(model, state, x, y, key):
        def run(x, key):
            return model(x, state, key=key)

        keys = jax.random.split(key, size["batch"])
        logits, state = jax.vmap(run, axis_name="batch", in_axes=(1, 0), out_axes=(0, None))(x, keys)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), state

    return model, state, loss


def published_model(algorithm: str, size: dict) -> tuple:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    published = importlib.import_module("models.LinHRU")
    model, state = eqx.nn.make_with_state(published.LinHRU)(
        num_blocks=size["blocks"],
        N=size["inputs"],
        ssm_size=size["units"],
        H=size["hidden"],
        output_dim=2,
        classification=True,
        output_step=1,
        learning_algorithm=algorithm,
        epsilon=0.1,
        complex_ssm=True,
        train_steps=True,
        nbr_dt=1,
        key=jax.random.key(2),
    )

    def loss(model, state, x, y, key):
        probabilities, state = jax.vmap(model, axis_name="batch", in_axes=(0, None, None), out_axes=(0, None))(
            x, state, key
        )
        return -jnp.mean(jnp.log(probabilities[jnp.arange(size["batch"]), y] + 1e-8)), state

    return model, state, loss


if __name__ == "__main__":
    main()
