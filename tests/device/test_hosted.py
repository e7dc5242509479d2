"""Machines behind a Python function: a leapfrog in plain numpy with hidden parameters."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import Chain, chain, mixed, worst
from echograd.device import Hosted, Record, run

pytestmark = pytest.mark.least_effort

HIDDEN = np.asarray([1.1, 0.9, 1.3])
CALLS = []


def springs(order):
    """A chain of masses whose actual springs differ from the commanded ones, without JAX."""
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(order))
    CALLS.append((int(order.experiment), int(order.run)))
    assert isinstance(order.times, np.ndarray)
    assert np.all(np.diff(order.times) < 0) == order.echo
    mass, stiffness = order.model.mass, order.model.stiffness * HIDDEN
    (q, p), h = order.start, order.dt
    p = -p if order.echo else p
    nodes, of_mass, of_stiffness, of_input = [], 0.0, 0.0, []
    for k in range(order.steps + 1):
        if order.echo:
            q, p = q + order.kicks[0][k], p + order.kicks[1][k]
        nodes.append((q, p))
        if k == order.steps:
            break
        of_mass = of_mass + h / 2 * p**2 / (2 * mass**2)
        q = q + h / 2 * p / mass
        of_stiffness = of_stiffness - h * q**2 / 2
        of_input.append(h * q[0])
        pull = np.diff(q)
        force = -stiffness * q + 0.6 * (np.append(pull, 0) - np.append(0, pull))
        force[0] += order.inputs[k]
        p = p + h * force
        of_mass = of_mass + h / 2 * p**2 / (2 * mass**2)
        q = q + h / 2 * p / mass
    nodes = tuple(np.stack(x) for x in zip(*nodes, strict=True))
    return Record(nodes, Chain(of_mass, of_stiffness), np.stack(of_input)) if order.echo else Record(nodes)


SYSTEM, Q, P, INPUTS = chain()[:4]
ARGUMENTS = SYSTEM, Q, P, INPUTS
OPTIONS = {"dt": 0.2}


def gradient(arguments, solver):
    def loss(arguments):
        system, q, p, inputs = arguments
        sol = solver(system, eg.InitialValue(q, p), inputs, **OPTIONS)
        return mixed((sol.q, sol.p))

    return eqx.filter_grad(loss)(arguments)


@eqx.filter_jit
def hosted_gradient(arguments, experiment=0, machine=Hosted(springs)):  # noqa: B008
    told = {"nudge": eg.Symmetric(0.1), "experiment": experiment, "throw": False}
    return gradient(arguments, lambda *args, **options: run(machine, *args, **options, **told))


def tolerance():
    return 1e-9 if Q.dtype == jnp.float64 else 1e-4


@pytest.fixture
def calls():
    CALLS.clear()
    return CALLS


def test_the_gradient_is_that_of_the_machine_whatever_its_owner_believes(calls):
    real = eqx.tree_at(lambda s: s.stiffness, SYSTEM, SYSTEM.stiffness * jnp.asarray(HIDDEN, Q.dtype))
    found = hosted_gradient(ARGUMENTS)
    assert calls == [(0, 0), (0, 1), (0, 2)]  # forward, and one echo for every strength
    expected = gradient((real, *ARGUMENTS[1:]), eqx.Partial(eg.solve, gradient=eg.Backprop()))
    ideal = gradient(ARGUMENTS, eqx.Partial(eg.solve, gradient=eg.Backprop()))
    assert worst(found, expected) < tolerance()  # linear springs: exact at any strength
    assert worst(found, ideal) > 0.05


@pytest.mark.float64_only
def test_only_some_nodes_are_kept_and_kicked(calls):
    """Of 13 steps, every fifth and the last: the machine still gets the kicks of all nodes, and returns all of them."""

    @eqx.filter_jit
    def of(solver, system, **options):
        def loss(arguments):
            system, q, p, inputs = arguments
            kept = [solver(system, eg.InitialValue(q, p), inputs, save=s, **OPTIONS, **options) for s in saves]
            return mixed([(sol.q, sol.p) for sol in kept])

        return eqx.filter_grad(loss)((system, Q, P, INPUTS))

    saves = eg.EveryNode(5), eg.FinalNode()
    real = eqx.tree_at(lambda s: s.stiffness, SYSTEM, SYSTEM.stiffness * jnp.asarray(HIDDEN, Q.dtype))
    found = of(eqx.Partial(run, Hosted(springs)), SYSTEM, nudge=eg.Symmetric(0.1), throw=False)
    assert worst(found, of(eg.solve, real, gradient=eg.Backprop())) < tolerance()


@pytest.mark.float64_only
def test_examples_of_a_batch_take_turns(calls):
    starts = jnp.stack([Q, -Q, 0.5 * Q])
    found = jax.vmap(lambda i, q: hosted_gradient((SYSTEM, q, P, INPUTS), i))(jnp.arange(3), starts)
    assert calls == [(i, j) for j in range(3) for i in range(3)]
    single = hosted_gradient((SYSTEM, starts[2], P, INPUTS))
    assert worst(jax.tree.map(lambda x: x[2], found), single) < tolerance()


@pytest.mark.float64_only
def test_experiments_in_a_loop_follow_each_other(calls):
    jax.lax.scan(lambda _, i: (None, hosted_gradient(ARGUMENTS, i)), None, jnp.arange(2))
    assert calls == [(i, j) for i in range(2) for j in range(3)]


NODES = np.zeros((14, 3)), np.zeros((14, 3))
ANSWERS = [None]
BROKEN = Hosted(lambda order: ANSWERS[0](order))  # one machine, so that it is compiled once


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda order: NODES, "returned a tuple, not an echograd.device.Record"),
        (lambda order: Record((NODES[0], np.zeros(3))), r"nodes .* shape \(3,\) in array 1, and \(14, 3\) is needed"),
        (lambda order: Record(NODES[:1]), "nodes .* are 1 arrays, and 2 are needed"),
        (lambda order: Record((NODES[0], NODES[1] + np.nan)), "nodes .* hold a NaN"),
        (lambda order: Record(NODES), "parameters .* are 0 arrays, and 2 are needed"),
        (lambda order: Record(NODES, order.model), "inputs .* are 0 arrays, and 1 are needed"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(function, complaint):
    ANSWERS[0] = function
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"(?s){complaint}"):
        jax.block_until_ready(hosted_gradient(ARGUMENTS, 0, BROKEN))


def test_a_machine_is_a_function():
    with pytest.raises(TypeError, match="not a function"):
        Hosted("/dev/ttyUSB0")
