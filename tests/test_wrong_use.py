"""What `solve` refuses before anything runs, and what it says."""

import jax
import jax.numpy as jnp
import pytest

import echograd as eg
from cases import Oscillator

pytestmark = [pytest.mark.precision_free, pytest.mark.fast, pytest.mark.least_effort]

Q = jnp.asarray([0.3, -0.2])
START = eg.InitialValue(Q, Q)
CASES = {
    "a step that is no number": ({"dt": None}, ValueError, "dt=None is not a real number"),
    "a step that is a word": ({"dt": "0.1"}, ValueError, "dt='0.1' is not a real number"),
    "a step of its own for every mass": ({"dt": Q}, ValueError, "one (real )?number"),
    "a time that is no number": ({"t0": None}, ValueError, "t0=None is not a real number"),
    "no steps": ({"steps": None}, ValueError, "give `steps`"),
    "zero steps": ({"steps": 0}, ValueError, "at least 1"),
    "half a step": ({"steps": 1.5}, ValueError, "Python integer"),
    "inputs that are a list of numbers": ({"inputs": [0.1, 0.2, 0.3]}, ValueError, "leading axis of steps"),
    "inputs of another length": ({"inputs": jnp.ones(4)}, ValueError, "disagree on the number of steps"),
    "a gradient by name": ({"gradient": "echo"}, TypeError, "not a gradient object"),
    "a gradient without parentheses": ({"gradient": eg.Echo}, TypeError, "parentheses"),
    "an integrator without parentheses": ({"integrator": eg.Leapfrog}, TypeError, "parentheses"),
    "a number to save": ({"save": 5}, TypeError, "nor AllNodes"),
    "a cost that is no function": ({"cost": 1.0}, TypeError, "not a function"),
    "a cost of every coordinate": ({"cost": lambda t, q, p: q}, ValueError, "one (real )?number"),
    "a guess for an initial value": ({"guess": (Q, Q)}, ValueError, "two-point problems"),
    "an echo between two ends": (
        {"boundary": eg.FixedEnds(Q, Q), "gradient": eg.Echo()},
        TypeError,
        "InitialValue only",
    ),
    "a boundary that is a tuple": ({"boundary": (Q, Q)}, TypeError, "a tuple"),
    "a system that is a function": ({"system": lambda t, q, p, u: 0.0}, TypeError, "the system is a function"),
    "a reciprocal gradient of an energy": ({"gradient": eg.Reciprocal()}, TypeError, "not a Dissipative"),
}


@pytest.mark.parametrize(("changed", "error", "words"), CASES.values(), ids=CASES)
def test_it_is_refused_with_the_reason(changed, error, words):
    options = {"system": Oscillator(jnp.ones(2)), "boundary": START, "dt": 0.1, "steps": 3, **changed}
    with pytest.raises(error, match=words):
        eg.solve(options.pop("system"), options.pop("boundary"), **options)


def test_a_state_is_given_once_and_whole():
    with pytest.raises(ValueError, match="got neither"):
        eg.InitialValue(Q)
    with pytest.raises(ValueError, match="got both"):
        eg.InitialValue(Q, Q, v=Q)
    with pytest.raises(ValueError, match="one number per coordinate"):
        eg.InitialValue(Q, jnp.ones(3))
    with pytest.raises(ValueError, match="different structures"):
        eg.InitialValue({"a": Q}, Q)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=lambda x: jnp.dtype(x).name)
def test_half_precision_is_one_type_error(dtype):
    """In 2,048 steps nothing is left of a phase; and JAX has no linear algebra for it."""
    q = jnp.asarray(Q, dtype)
    unit = eg.nn.LinearHRU(2, 4, key=jax.random.key(0))
    half = jax.tree.map(lambda x: x.astype(dtype), unit)
    for call in (
        lambda: eg.InitialValue(q, q),
        lambda: eg.InitialValue(q, v=q),
        lambda: eg.FixedEnds(q, q),
        lambda: eg.solve(Oscillator(jnp.ones(2)), eg.Periodic(), dt=0.1, steps=3, guess=(q, q)),
        lambda: eg.equilibrium(lambda s, u: jnp.sum(s**2), q),
        lambda: half(jnp.ones((5, 2), dtype)),
    ):
        with pytest.raises(TypeError, match=rf"is {jnp.dtype(dtype).name}, .* Convert it to float32 or float64"):
            call()


def test_an_explicit_mesh_is_refused_and_its_remedies_work():
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    unit = eg.nn.LinearHRU(2, 4, key=jax.random.key(0))
    with jax.set_mesh(mesh):
        batch, ones = jax.device_put(jnp.ones((2, 5, 2)), spread), jax.device_put(jnp.ones(2), spread)

        def run(q, stiffness):
            return eg.solve(Oscillator(stiffness), eg.InitialValue(q, 0 * q), dt=0.1, steps=3).q[-1]

        for call in (lambda: run(ones, jnp.ones(2)), lambda: run(jnp.ones(2), ones), lambda: unit(batch)):
            with pytest.raises(TypeError, match=r"sharded over an explicit mesh, .*AxisType\.Auto"):
                call()
        expected = run(jnp.ones(2), jnp.ones(2))
        found = jax.sharding.auto_axes(run, out_sharding=jax.sharding.PartitionSpec("x"))(ones, ones)
        assert jnp.allclose(jax.device_get(found), expected)
        assert jax.vmap(unit)(batch).shape == (2, 5, 4)
