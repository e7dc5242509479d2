"""Nonlinear units with the loop over time in one kernel: the same numbers, and a program for a GPU."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import echograd as eg
from echograd.nn import _kernel, _layer

pytestmark = pytest.mark.least_effort


def unit(gradient, kernel, **options):
    made = eg.nn.NonlinearHRU(3, 3, units=5, gradient=gradient, kernel=kernel, key=jax.random.key(0), **options)
    return eqx.tree_at(lambda u: u.bias, made, 0.3 * jnp.cos(jnp.arange(1.0, 1 + made.bias.size)).reshape(-1, 5))


@eqx.filter_jit
def outputs_and_gradients(unit, x):
    def loss(arguments):
        unit, x = arguments
        y = unit(x)
        return jnp.sum((y - 1) ** 2), y

    (_, y), bars = eqx.filter_value_and_grad(loss, has_aux=True)((unit, x))
    return y, jax.tree.leaves(bars)


def worst(found, expected):
    return max(
        float(jnp.linalg.norm(x - y) / jnp.linalg.norm(y))
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    )


# Sizes that are not powers of two, batches, and a nudge that runs several machines at once.
@pytest.mark.parametrize("nudge", [eg.Infinitesimal(), eg.Symmetric()], ids=["infinitesimal", "symmetric"])
def test_the_kernel_computes_what_the_scan_does(nudge, new_key):
    x = 0.5 * jax.random.normal(new_key(), (3, 40, 3))
    eps = float(jnp.finfo(x.dtype).eps)
    plain, fused = (outputs_and_gradients(unit(eg.Echo(nudge), kernel), x) for kernel in (False, True))
    assert worst(fused[0], plain[0]) < 100 * eps
    # Readings of a finite nudge are differences, so their rounding error is divided by the nudge.
    assert worst(fused[1], plain[1]) < (1e4 * eps if isinstance(nudge, eg.Infinitesimal) else eps**0.5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [3, 16, 21])
def test_any_number_of_steps(steps, reverse, new_key):
    """Fewer steps than are prefetched, a multiple of them, and a remainder. The order of the steps matters."""
    a, z, pushes = (jax.random.normal(new_key(), shape) for shape in ((5,), (5,), (steps, 5)))

    def step(a, z, row, push):
        del row
        after = jnp.sin(a * z) + push
        return after, after - z

    scan = jax.jit(lambda z, pushes: _kernel.scan(step, a, z, None, pushes, reverse=reverse))
    plain = jax.lax.scan(lambda z, push: step(a, z, None, push), z, pushes, reverse=reverse)
    assert worst(scan(z, pushes), plain) < 100 * float(jnp.finfo(z.dtype).eps)


@pytest.mark.float64_only
def test_the_echo_in_a_kernel_is_exact_in_a_deep_model(new_key):
    x = jax.random.normal(new_key(), (2, 30, 2))

    def gradients(gradient, kernel):
        model = eg.nn.HSSM(
            2, 3, hidden=4, units=3, unit="nonlinear", dropout=0.0, gradient=gradient, kernel=kernel, key=key
        )
        return eqx.filter_jit(eqx.filter_grad(lambda model: jnp.sum(model(x) ** 2)))(model)

    key = new_key()
    assert worst(gradients(eg.Echo(), True), gradients(eg.Backprop(), False)) < 1e-9
    with pytest.raises(ValueError, match="linear units need no kernel"):
        eg.nn.HSSM(2, 3, kernel=True, key=key)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 12), reason="jax before 0.12 describes absent devices by another interface"
)
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
def test_a_gpu_gets_one_kernel_a_block(new_key):
    """Lower the program for a GPU, forward and back, on a machine without one."""
    x = jax.random.normal(new_key(), (2, 40, 3))
    fused, device = unit(eg.Echo(), True), jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
    motion = _layer.motion(fused.system, eg.Echo(), 40)
    drive = fused.projections.drive(jnp.moveaxis(x, -1, 0))
    z = (drive[..., 0], drive[..., 1])

    def both(z, drive):
        after, q = motion.run(z, drive)
        beta = jnp.zeros((), x.dtype)
        return motion.respond(beta, motion.start(motion.turn(after), beta, z), None, drive, q)

    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.jit(both).trace(z, drive).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("oscillators_through_time") >= 2
    assert "stablehlo.while" not in program
