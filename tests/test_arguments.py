"""Every public callable, every argument, all kinds of wrong values: each is refused with one clear sentence.

Clear means that echograd raises it, with the name of the callable (or of what calls it) in front. A value that would
be taken in silence is as wrong as an error from deep inside.
"""

import inspect
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]

NAN = float("nan")
KEY = jax.random.key(0)
Q = jnp.asarray([0.3, -0.2])
MATRIX = jnp.asarray([[1.0, 0.5], [0.5, 1.0]])


class Osc(eg.SeparableHamiltonian):
    k: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.k * q**2)


class Driven(Osc):
    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.k * q**2) - jnp.sum(u * q)


class Whole(Osc):
    """Its energy is an integer."""

    def potential(self, t, q, u):
        return jnp.sum(q > 0)


class Swing(eg.Lagrangian):
    def __call__(self, t, q, v, u):
        return 0.5 * jnp.sum(v**2) - 0.5 * jnp.sum(q**2)


S, DRIVEN, START = Osc(jnp.ones(2)), Driven(jnp.ones(2)), eg.InitialValue(Q, Q)


def energy(s, u):
    return 0.5 * jnp.sum(s**2)


def loss(k, gradient):
    return jnp.sum(eg.solve(Osc(k), START, dt=0.1, steps=2, gradient=gradient).q[-1])


# What each kind of argument must not be.
OBJECTS = ("x", 5, object(), [1, 2])
NUMBERS = ("x", NAN, True, 1j, [0.1], jnp.ones(2), object(), jnp.asarray(NAN), "auto ", 10**400)
WRONG = {
    "positive": (*NUMBERS, 0, -1.0, np.inf, jnp.asarray(-1.0), None),
    "step": (*NUMBERS, 0, -1.0, np.inf, jnp.asarray(-1.0), None),
    "not negative": (*NUMBERS, -1.0, np.inf),
    "number": (*NUMBERS, np.inf),
    "strength": (*NUMBERS, 0, np.inf, "Auto", None),
    "positive strength": (*NUMBERS, 0, -1, np.inf, "Auto", None),
    "tolerance": ("x", NAN, True, 1j, [0.1], jnp.ones(2), object(), -1),
    "share": (*NUMBERS, -0.1, 1, 2),
    "count": ("x", 0, -1, 1.5, 2.0, True, NAN, None, 10**13, 2**70, [1], jnp.ones(2), object(), np.True_),
    "index": ("x", -1, 1.5, True, NAN, None, 2**70, [1], object()),
    "integer": ("x", 1.5, True, NAN, None, 2**70, [1], object()),
    "flag": ("no", "", 0, 1.0, None, [], jnp.asarray(True), object()),
    "key": ("x", 0, NAN, True, jnp.ones(2), jax.random.split(KEY), object()),
    "function": ("x", 5, [], jnp.ones(2), Osc),
    "object": OBJECTS,
    "object, always": (*OBJECTS, None),
    "class": (*OBJECTS, eg.Echo, jnp.ones(2)),
    "state": (
        "x",
        object(),
        NAN,
        [0.1, 0.2],
        (1, 2.0),
        jnp.asarray([NAN, 1]),
        Q.astype(complex),
        Q > 0,
        jnp.zeros(0),
        ["a", "b"],
    ),
    "pair": ("x", 5, None, (Q,), (Q, jnp.ones(3)), (Q, "x"), Q, (NAN * Q, Q), ([0.1, 0.2], [0.1, 0.2])),
    "matrix": (
        "x",
        object(),
        None,
        NAN,
        MATRIX.astype(complex),
        jnp.ones(3),
        jnp.ones((2, 3)),
        [],
        [[1.0], [1.0, 2.0]],
        jnp.inf,
    ),
    "vector": ("x", object(), NAN, Q.astype(complex), jnp.ones((2, 3)), [[1.0], [1.0, 2.0]]),
    "parameter": ("x", object(), None, NAN, 1j, jnp.asarray([1.0, jnp.inf]), ["a"], True, KEY),
    "positive parameter": ("x", object(), None, NAN, 1j, 0.0, -1, jnp.asarray([1.0, -1.0]), jnp.inf, ["a"], True),
    "nodes": ("x", 5, None, [], [3, 2], [1, 1], [-1], [0.5], [True], jnp.ones((2, 2)), object()),
    "times": ("x", object(), NAN, 0.5, [], [0.1, NAN], jnp.ones((2, 2)), [1j], ["a"], None),
    "sides": ("x", 5, [0], [(0, 2)], [(-1, 0)], [(0, 0), (0, 0)], [], object()),
    "difference": ("x", 3, 0, None, 2.5, [2], object()),
    "density": ("x", object(), NAN, 0.0, -jnp.ones((3, 3)), jnp.ones((3, 3), complex), True),
    "points": ("x", object(), NAN, [0.5], [[0.5]], [[9.0, 0.0]], [[-1.0, 0.0]], [[1j, 0]], True),
    "inputs": ("x", object(), 5, 0.1, [0.1, 0.2], np.array([object()] * 3), jnp.zeros((0, 2))),
    "sequence of ints": ("x", 5, None, [3], [3, 2.5, 2], [3, 0], [3, True]),
    "rates": ("x", 1.0, (1.0,), (2.0, 1.0), (0.0, 1.0), (0.1, float("inf")), (NAN, 1.0), ("a", "b"), (None, 1.0)),
    "angles": ("x", 1.0, (1.0,), (2.0, 1.0), (0.0, 1.0), (0.1, 4.0), (NAN, 1.0), ("a", "b"), (None, 1.0)),
    "bounds": ("x", 1.0, (None, 1.0), (1.0, 0.0), (NAN, 1.0), (1.0, 1.0), (0.0,), ("a", "b")),
    "choice": ("x", 5, None, ["open"], True),
    "rows": ("x", None, object(), jnp.ones((5, 7)), jnp.ones(2, int), jnp.zeros((0, 2)), jnp.full((5, 2), NAN), 1.0),
    "row": ("x", None, object(), jnp.ones(7), jnp.ones(2, int), jnp.full(2, NAN), 1.0),
    "guess": ("x", 5, (Q,), (Q, jnp.ones(3)), (Q, "x"), (jnp.ones(3), jnp.ones(3)), (NAN * Q, Q)),
    "trajectory": ("x", None, 5, (Q, Q)),
}

HSSM = eg.nn.HSSM(2, 3, hidden=4, units=4, blocks=1, dropout=0.0, key=KEY)
UNIT = eg.nn.LinearHRU(2, 2, units=4, key=KEY)
SOL = eg.solve(S, START, dt=0.1, steps=3)
MACHINE = eg.SelfLearningMachine(
    eg.MovingParameters(S, 10.0), lambda q, p, target: jnp.sum((q - target) ** 2), dt=0.1, steps=2
)
MOVING, PENDULUM = eg.MovingParameters(S, 10.0), eg.systems.PendulumChain()
FIELD = (([jnp.ones(2)], [jnp.zeros(2)]), (Q, Q))


def zoo(make, **kinds):
    return (
        make,
        {},
        {name: {"any": "parameter", "+": "positive parameter"}.get(kind, kind) for name, kind in kinds.items()},
    )


# Callable, arguments that are right, and the kinds of its arguments.
TABLE = {
    "solve": (
        eg.solve,
        {"system": S, "boundary": START, "dt": 0.1, "steps": 3},
        {
            "system": "object, always",
            "boundary": "class",
            "inputs": "inputs",
            "dt": "step",
            "steps": "count",
            "t0": "number",
            "integrator": "class",
            "gradient": "class",
            "save": "function",
            "cost": "function",
            "guess": "guess",
            "solver": "class",
            "throw": "flag",
        },
    ),
    "retrace_error": (
        eg.retrace_error,
        {"system": S, "boundary": START, "dt": 0.1, "steps": 3},
        {
            "system": "object, always",
            "boundary": "class",
            "inputs": "inputs",
            "dt": "step",
            "steps": "count",
            "t0": "number",
        }
        | {"integrator": "class"},
    ),
    "two-point": (
        lambda guess=(Q, Q), **more: eg.solve(S, eg.Periodic(), dt=0.1, steps=3, guess=guess, **more),
        {},
        {"guess": "guess", "solver": "class", "gradient": "class"},
    ),
    "InitialValue": (eg.InitialValue, {"q": Q, "p": Q}, {"q": "state", "p": "state"}),
    "InitialValue, v": (eg.InitialValue, {"q": Q, "v": Q}, {"v": "state"}),
    "FinalValue": (eg.FinalValue, {"q": Q, "p": Q}, {"q": "state", "p": "state"}),
    "FixedEnds": (eg.FixedEnds, {"q0": Q, "qN": Q}, {"q0": "state", "qN": "state"}),
    "FreeEnds": (eg.FreeEnds, {"p0": Q, "pN": Q}, {"p0": "state", "pN": "state"}),
    "MixedEnds": (eg.MixedEnds, {"q0": Q, "pN": Q}, {"q0": "state", "pN": "state"}),
    "Periodic": (eg.Periodic, {}, {"twist": "matrix"}),
    "Robin": (
        lambda K0=MATRIX, KN=MATRIX, b0=Q, bN=Q: eg.defect(eg.Robin(K0, KN, b0, bN)),
        {},
        {"K0": "matrix", "KN": "matrix", "b0": "vector", "bN": "vector"},
    ),
    "LinearBoundary": (eg.LinearBoundary, {"B": jnp.eye(4, 8), "b": jnp.zeros(4)}, {"B": "matrix", "b": "vector"}),
    "dual": (eg.dual, {"boundary": START}, {"boundary": "object, always", "ends": "guess", "like": "state"}),
    "defect": (eg.defect, {"boundary": eg.Periodic()}, {"boundary": "object, always", "like": "state"}),
    "EveryNode": (eg.EveryNode, {"k": 2}, {"k": "count"}),
    "AtNodes": (eg.AtNodes, {"nodes": [0, 2]}, {"nodes": "nodes"}),
    "AtTimes": (eg.AtTimes, {"times": [0.0, 0.2]}, {"times": "times"}),
    "AllNodes": (eg.AllNodes, {}, {}),
    "FinalNode": (eg.FinalNode, {}, {}),
    "Backprop": (eg.Backprop, {}, {"checkpoints": "count, or none"}),
    "Echo": (eg.Echo, {}, {"nudge": "class", "retrace_tolerance": "tolerance"}),
    "Glep": (eg.Glep, {}, {"nudge": "class", "retrace_tolerance": "tolerance"}),
    "SameBoundary": (eg.SameBoundary, {}, {"nudge": "class", "correct": "flag"}),
    "Reciprocal": (eg.Reciprocal, {}, {"nudge": "class", "tolerance": "tolerance"}),
    "Rewind": (
        eg.Rewind,
        {},
        {"bits": "positive, or none", "checkpoints": "count, or none", "report": "function, or none"},
    ),
    "Damped": (eg.Damped, {"system": S, "friction": 0.1}, {"system": "object, always", "friction": "parameter"}),
    "friction.Border": (eg.friction.Border, {"rates": [0.1, 0.2]}, {"rates": "times", "sides": "sides"}),
    "friction.FrictionMatrix": (eg.friction.FrictionMatrix, {"matrix": jnp.eye(2)}, {"matrix": "matrix"}),
    "friction.Drag": (eg.friction.Drag, {"law": lambda t, q, p, u: p}, {"law": "function"}),
    "friction.Langevin": (
        eg.friction.Langevin,
        {"rate": 0.1, "temperature": 1.0, "key": KEY},
        {"rate": "parameter", "temperature": "not negative", "key": "key"},
    ),
    "friction.NoseHoover": (
        eg.friction.NoseHoover,
        {"temperature": 1.0, "inertia": 1.0},
        {"temperature": "positive", "inertia": "positive", "freedoms": "positive, or none"},
    ),
    "EP": (eg.EP, {}, {"nudge": "class"}),
    "Implicit": (eg.Implicit, {}, {}),
    "TwoPointNewton": (
        eg.TwoPointNewton,
        {},
        {"iterations": "count", "continuation": "count", "tolerance": "tolerance"},
    ),
    "Leapfrog": (eg.Leapfrog, {"exact": True}, {"exact": "flag", "bits": "integer, or none"}),
    "VelocityVerlet": (eg.VelocityVerlet, {"exact": True}, {"exact": "flag", "bits": "integer, or none"}),
    "ImplicitMidpoint": (eg.ImplicitMidpoint, {}, {}),
    "Yoshida": (eg.Yoshida, {}, {"order": "count"}),
    "SplitStep": (eg.SplitStep, {}, {"order": "count"}),
    "Infinitesimal": (eg.Infinitesimal, {}, {}),
    "Symmetric": (eg.Symmetric, {}, {"beta": "positive strength"}),
    "OneSided": (eg.OneSided, {}, {"beta": "strength"}),
    "Richardson": (eg.Richardson, {}, {"beta": "positive strength", "order": "count"}),
    "Holomorphic": (eg.Holomorphic, {}, {"radius": "positive strength", "points": "count"}),
    "Noisy": (
        eg.Noisy,
        {"nudge": eg.Symmetric(0.1), "scale": 0.1, "key": KEY},
        {"nudge": "class", "scale": "not negative", "key": "key", "quiet": "flag"},
    ),
    "Relaxation": (eg.Relaxation, {}, {"step": "positive", "tolerance": "tolerance", "max_steps": "count"}),
    "LayerwiseRelaxation": (
        eg.LayerwiseRelaxation,
        {},
        {"step": "positive", "tolerance": "tolerance", "max_steps": "count"},
    ),
    "Newton": (eg.Newton, {}, {"tolerance": "tolerance", "max_steps": "count"}),
    "equilibrium": (
        eg.equilibrium,
        {"energy": energy, "x0": Q},
        {
            "energy": "function",
            "x0": "state",
            "gradient": "class",
            "solver": "class",
            "bounds": "bounds",
            "throw": "flag",
        },
    ),
    "solutions": (
        eg.solutions,
        {"system": S, "boundary": eg.Periodic(), "guesses": [(Q, Q)], "dt": 0.1, "steps": 2},
        {
            "system": "object, always",
            "boundary": "object, always",
            "guesses": "trajectory",
            "dt": "step",
            "steps": "count",
            "separation": "not negative",
        },
    ),
    "energy": (eg.energy, {"system": S, "sol": SOL}, {"system": "object, always", "sol": "trajectory"}),
    "velocity": (eg.velocity, {"system": S, "sol": SOL}, {"system": "object, always", "sol": "trajectory"}),
    "diagnose": (
        eg.diagnose,
        {"system": S, "boundary": START, "dt": 0.1, "steps": 2},
        {
            "system": "object, always",
            "boundary": "object, always",
            "inputs": "inputs",
            "dt": "step",
            "steps": "count",
            "t0": "number",
            "integrator": "class",
            "tolerance": "tolerance",
            "mirrors": "trajectory",
        },
    ),
    "audit": (
        eg.audit,
        {"system": S, "rules": {"echo": (START, eg.Echo())}, "dt": 0.1, "steps": 2},
        {
            "system": "object, always",
            "rules": "object, always",
            "inputs": "inputs",
            "dt": "step",
            "steps": "count",
            "t0": "number",
            "integrator": "class",
            "cost": "function",
            "guess": "audit guess",
            "growth": "flag",
            "repeats": "count",
            "progress": "function",
        },
    ),
    "check_gradients": (
        eg.check_gradients,
        {"loss": loss, "params": jnp.ones(2)},
        {"loss": "function", "params": "object, always", "gradients": "class", "reference": "class", "taylor": "flag"}
        | {"key": "key"},
    ),
    "nudge_sweep": (
        eg.nudge_sweep,
        {"loss": loss, "params": jnp.ones(2), "betas": [0.1], "noise": 0.1},
        {
            "loss": "function",
            "params": "object, always",
            "betas": "trajectory",
            "nudge": "class",
            "noise": "not negative",
            "repeats": "count",
            "reference": "class",
            "key": "key",
        },
    ),
    "equivalence": (
        eg.equivalence,
        {"systems": {"a": (S, (Q, Q), 0.1)}},
        {"systems": "object, always", "steps": "count"},
    ),
    "SelfLearningMachine": (
        eg.SelfLearningMachine,
        {"system": MOVING, "cost": lambda q, p, target: jnp.sum(q), "dt": 0.1, "steps": 2},
        {
            "system": "object, always",
            "cost": "function",
            "dt": "step",
            "steps": "count",
            "eta": "number",
            "mass": "number",
            "friction": "friction",
            "averaged": "flag",
            "integrator": "class",
        },
    ),
    "SelfLearningMachine.learn": (
        MACHINE.learn,
        {"field": FIELD[0], "evaluation": FIELD[1], "target": Q},
        {"field": "pair", "evaluation": "pair"},
    ),
    "SelfLearningMachine.decay": (MACHINE.decay, {"field": FIELD[0]}, {"field": "pair"}),
    "SelfLearningMachine.rest": (MACHINE.rest, {"theta": Q}, {"theta": "state"}),
    "canonical": (eg.canonical, {"psi": Q}, {"psi": "psi"}),
    "wave": (eg.wave, {"q": Q, "p": Q}, {"q": "trajectory", "p": "trajectory"}),
    "legendre": (eg.legendre, {"system": S}, {"system": "object, always"}),
    "MassDamped": (eg.MassDamped, {"system": S, "rate": 0.1}, {"system": "object, always", "rate": "number"}),
    "Envelope": (eg.Envelope, {"system": S, "rate": 0.1}, {"system": "object, always", "rate": "number"}),
    "MovingParameters": (
        eg.MovingParameters,
        {"system": S, "mass": 10.0},
        {"system": "object, always", "mass": "positive", "where": "function"},
    ),
    "MovingParameters.at": (MOVING.at, {"parameters": [jnp.ones(2)]}, {"parameters": "trajectory"}),
    "MovingParameters.state": (MOVING.state, {"q": Q, "p": Q}, {"q": "state", "p": "state"}),
    "LinearDamped": (
        eg.LinearDamped,
        {"mass": MATRIX, "damping": MATRIX, "stiffness": MATRIX},
        {"mass": "vector", "damping": "vector", "stiffness": "vector", "drive": "drive", "twist": "vector"},
    ),
    "systems.Kepler": zoo(eg.systems.Kepler, mass="+", attraction="any"),
    "systems.Kepler.start": (eg.systems.Kepler().start, {}, {"eccentricity": "share"}),
    "systems.NBody": zoo(eg.systems.NBody, mass="+", gravitation="any", softening="any"),
    "systems.NBody.start": (eg.systems.NBody().start, {}, {"seed": "index", "dimension": "count"}),
    "systems.FPUTChain": zoo(eg.systems.FPUTChain, mass="+", stiffness="any", alpha="any", beta="any"),
    "systems.FPUTChain.start": (eg.systems.FPUTChain().start, {}, {"n": "count", "amplitude": "number"}),
    "systems.PendulumChain": zoo(eg.systems.PendulumChain, mass="+", length="+", coupling="any", gravity="any"),
    "systems.PendulumChain.start": (PENDULUM.start, {}, {"n": "count", "angle": "number"}),
    "systems.DoublePendulum": zoo(eg.systems.DoublePendulum, mass="+", length="+", gravity="any"),
    "systems.SphericalPendulum": zoo(eg.systems.SphericalPendulum, mass="+", length="+", gravity="any"),
    "systems.ChargedParticle": zoo(eg.systems.ChargedParticle, mass="+", charge="any", field="any", trap="any"),
    "systems.LCLadder": zoo(eg.systems.LCLadder, capacitance="+", inductance="+"),
    "systems.LCLadder.start": (eg.systems.LCLadder().start, {}, {"n": "count"}),
    "systems.SineGordon": zoo(eg.systems.SineGordon, speed="any", frequency="any", spacing="positive"),
    "systems.SineGordon.start": (eg.systems.SineGordon().start, {}, {"n": "count", "velocity": "velocity"}),
    "systems.AcousticField": (
        eg.systems.AcousticField,
        {"speed": jnp.ones((3, 3))},
        {"speed": "positive parameter", "spacing": "positive", "order": "difference", "density": "density"}
        | {"sources": "points", "receivers": "points", "free_surface": "flag", "reference": "positive, or none"},
    ),
    "systems.WaveField": zoo(eg.systems.WaveField, speed="any", spacing="positive"),
    "systems.OscillatorNetwork": zoo(eg.systems.OscillatorNetwork, mass="+", stiffness="any", bonds="any"),
    "systems.DuffingNetwork": zoo(
        eg.systems.DuffingNetwork, mass="+", stiffness="any", hardening="any", coupling="any"
    ),
    "systems.KerrLattice": (
        eg.systems.KerrLattice,
        {},
        {"hopping": "hopping", "detuning": "parameter", "kerr": "parameter", "reflection": "permutation"},
    ),
    "systems.NonlinearSchroedinger": (
        eg.systems.NonlinearSchroedinger,
        {},
        {"potential": "grid", "nonlinearity": "parameter", "dispersion": "parameter", "spacing": "positive"}
        | {"ends": "choice"},
    ),
    "systems.Kinetic": (eg.systems.Kinetic, {}, {"energy": "function"}),
    "systems.Potential": (eg.systems.Potential, {}, {"energy": "function"}),
    "systems.Intensities": (eg.systems.Intensities, {}, {"energy": "function"}),
    "systems.Hopping": (eg.systems.Hopping, {}, {"matrix": "hopping"}),
    "systems.Dispersion": (
        eg.systems.Dispersion,
        {"frequencies": jnp.ones(2), "ends": "open"},
        {"frequencies": "parameter", "ends": "choice"},
    ),
    "systems.Drive": (eg.systems.Drive, {}, {"source": "source"}),
    "nn.LinearHRU": (
        eg.nn.LinearHRU,
        {"inputs": 2, "outputs": 3, "units": 4, "key": KEY},
        {"inputs": "count", "outputs": "count", "units": "count", "complex": "flag", "angles": "angles"}
        | {"gradient": "class", "key": "key"},
    ),
    "nn.NonlinearHRU": (
        eg.nn.NonlinearHRU,
        {"inputs": 2, "outputs": 3, "units": 4, "key": KEY},
        {"inputs": "count", "outputs": "count", "units": "count", "complex": "flag", "angles": "angles"}
        | {"gradient": "class", "kernel": "flag", "key": "key"},
    ),
    "nn.DampedHRU": (
        eg.nn.DampedHRU,
        {"inputs": 2, "outputs": 3, "units": 4, "key": KEY},
        {"inputs": "count", "outputs": "count", "units": "count", "complex": "flag", "angles": "angles"}
        | {"decays": "rates", "gradient": "class", "key": "key"},
    ),
    "nn.HSSM": (
        eg.nn.HSSM,
        {"inputs": 2, "outputs": 3, "key": KEY},
        dict.fromkeys(("inputs", "outputs", "hidden", "units", "blocks", "patch", "taps"), "count")
        | {"every": "count, if any", "pooling": "choice", "bidirectional": "flag"}
        | {"unit": "choice", "norm": "choice", "head": "choice", "complex": "flag", "dropout": "share"}
        | {"angles": "angles", "decays": "rates", "gradient": "class", "kernel": "flag", "key": "key"},
    ),
    "nn.HSSM, called": (
        HSSM,
        {"x": jnp.ones((5, 2))},
        {"x": "rows", "state": "trajectory, if any", "mask": "mask"},
    ),
    "nn.HSSM.step": (HSSM.step, {"state": HSSM.initial_state(), "u": jnp.ones(2)}, {"state": "trajectory", "u": "row"}),
    "nn.HSSM.chunk": (
        HSSM.chunk,
        {"state": HSSM.initial_state(), "x": jnp.ones((5, 2))},
        {"state": "trajectory", "x": "rows"},
    ),
    "nn.LinearHRU, called": (
        UNIT,
        {"x": jnp.ones((5, 2)), "state": UNIT.initial_state()},
        {"x": "rows", "state": "pair, if any"},
    ),
    "nn.LinearHRU.initial_state": (UNIT.initial_state, {"batch": 2}, {"batch": "count, if any"}),
    "nn.LinearHRU.step": (UNIT.step, {"state": UNIT.initial_state(), "u": jnp.ones(2)}, {"state": "pair", "u": "row"}),
    "nn.LayerNorm": (eg.nn.LayerNorm, {}, {"features": "count"}),
    "nn.LayerNorm, called": (eg.nn.LayerNorm(2), {"x": jnp.ones((5, 2))}, {"x": "rows"}),
    "nn.BatchNorm": (
        eg.nn.BatchNorm,
        {"features": 2},
        {"features": "count", "axis_name": "name", "momentum": "share", "inference": "flag"},
    ),
    "nn.HopfieldNet": (
        eg.nn.HopfieldNet,
        {"sizes": [3, 2], "key": KEY},
        {"sizes": "sequence of ints", "activation": "choice", "key": "key"},
    ),
    "nn.HopfieldNet.rest": (
        eg.nn.HopfieldNet([2, 2], key=KEY).rest,
        {"u": Q},
        {"u": "state", "gradient": "class", "solver": "class", "throw": "flag"},
    ),
    "nn.HopfieldClassifier": (
        eg.nn.HopfieldClassifier,
        {"sizes": [3, 2], "key": KEY},
        {"sizes": "sequence of ints", "gradient": "class", "sharpness": "positive", "key": "key"},
    ),
    "nn.ResistiveNet": (
        eg.nn.ResistiveNet,
        {"nodes": 3, "inputs": 2, "resistors": [(0, 2)]},
        {
            "nodes": "count",
            "inputs": "index",
            "resistors": "trajectory",
            "diodes": "trajectory",
            "conductance": "positive parameter",
            "thermal_voltage": "positive",
            "knee": "positive",
        },
    ),
    "device.Simulated": (
        eg.device.Simulated,
        {},
        {"imperfections": "trajectory", "plant": "function", "integrator": "class"},
    ),
    "device.Hosted": (eg.device.Hosted, {}, {"function": "function"}),
    "device.Mismatch": (eg.device.Mismatch, {"spread": 0.1, "key": KEY}, {"spread": "not negative", "key": "key"}),
    "device.Drift": (eg.device.Drift, {"spread": 0.1, "key": KEY}, {"spread": "not negative", "key": "key"}),
    "device.Friction": (eg.device.Friction, {}, {"rate": "not negative"}),
    "device.ForceNoise": (
        eg.device.ForceNoise,
        {"strength": 0.1, "key": KEY},
        {"strength": "not negative", "key": "key"},
    ),
    "device.ReadoutNoise": (
        eg.device.ReadoutNoise,
        {"scale": 0.1, "key": KEY},
        {"scale": "not negative", "key": "key"},
    ),
    "device.ImperfectMirror": (
        eg.device.ImperfectMirror,
        {"key": KEY},
        {"gain": "not negative", "noise": "not negative", "key": "key"},
    ),
    "device.Quantisation": (eg.device.Quantisation, {}, {"readout": "not negative", "kicks": "not negative"}),
    "device.run": (
        eg.device.run,
        {"machine": eg.device.Simulated(), "model": S, "boundary": START, "dt": 0.1, "steps": 2}
        | {"nudge": eg.Symmetric(0.1)},
        {
            "machine": "object, always",
            "model": "object, always",
            "boundary": "object, always",
            "inputs": "inputs",
            "dt": "step",
            "steps": "count",
            "t0": "number",
            "nudge": "object, always",
            "experiment": "integer",
            "retrace_tolerance": "tolerance",
            "probe": "number",
            "throw": "flag",
        },
    ),
    "device.retrace_error": (
        eg.device.retrace_error,
        {"machine": eg.device.Simulated(), "model": S, "boundary": START, "dt": 0.1, "steps": 2},
        {"machine": "object, always", "model": "object, always", "boundary": "object, always", "experiment": "integer"}
        | {"dt": "step", "steps": "count"},
    ),
    "device.survey": (
        eg.device.survey,
        {"loss": lambda sol: jnp.sum(sol.q[-1]), "model": S, "boundary": START, "dt": 0.1, "steps": 2}
        | {"nudge": eg.Symmetric(0.1)},
        {
            "loss": "function",
            "model": "object, always",
            "boundary": "object, always",
            "dt": "step",
            "steps": "count",
            "nudge": "class",
            "strengths": "trajectory",
            "imperfections": "class",
            "machine": "class",
            "repeats": "count",
            "key": "key",
        },
    ),
}
WRONG |= {
    "velocity": (*NUMBERS, 1.0, -2.0),
    "count, or none": [x for x in WRONG["count"] if x is not None],
    "integer, or none": [x for x in WRONG["integer"] if x is not None],
    "positive, or none": [x for x in WRONG["positive"] if x is not None],
    "function, or none": [x for x in WRONG["function"] if x is not None],
    "audit guess": ("x", 5, (Q,), (Q, jnp.ones(3)), (Q, "x"), (NAN * Q, Q)),
    "friction": (*NUMBERS, 0, -1.0),
    "psi": ("x", None, object(), NAN, "1"),
    "grid": [x for x in WRONG["parameter"] if x is not None],
    "drive": ("x", object(), NAN, Q.astype(complex), jnp.ones(3), [[1.0], [1.0, 2.0]]),
    "name": (5, None, ["batch"]),
    "permutation": ("x", 5, [0.5], [1, 2, 0, 3, 4, 5], [[0, 1]], [0]),
    "hopping": ("x", object(), NAN, jnp.ones(3), jnp.ones((2, 3)), [], NAN * MATRIX),
    "source": ("x", object(), NAN, NAN * MATRIX),
    "mask": ("x", 5, jnp.ones(5), jnp.ones(4, bool), object()),
    "trajectory, if any": ("x", 5, (Q, Q)),
    "pair, if any": [x for x in WRONG["pair"] if x is not None],
    "count, if any": [x for x in WRONG["count"] if x is not None],
}

# Systems, functions and shapes that do not fit together: calls that the table has no column for.
TOGETHER = {
    "solve, steps beyond a float": lambda: eg.solve(S, START, dt=0.1, steps=2**70, save=eg.FinalNode()),
    "solve, inputs that do not fit": lambda: eg.solve(DRIVEN, START, jnp.ones((3, 5)), dt=0.1),
    "solve, inputs left out": lambda: eg.solve(DRIVEN, START, dt=0.1, steps=3),
    "solve, another size": lambda: eg.solve(Osc(jnp.ones(3)), START, dt=0.1, steps=3),
    "solve, a parameter that is a string": lambda: eg.solve(Osc("k"), START, dt=0.1, steps=3),
    "solve, a parameter that is none": lambda: eg.solve(Osc(None), START, dt=0.1, steps=3),
    "solve, an energy that is an integer": lambda: eg.solve(Whole(jnp.ones(2)), START, dt=0.1, steps=3),
    "solve, save takes q": lambda: eg.solve(S, START, dt=0.1, steps=3, save=lambda q: q),
    "solve, save returns a string": lambda: eg.solve(S, START, dt=0.1, steps=3, save=lambda t, q, p: "x"),
    "solve, cost takes q": lambda: eg.solve(S, START, dt=0.1, steps=3, cost=lambda q: 1.0),
    "solve, ends of another size": lambda: eg.solve(
        S, eg.FreeEnds(jnp.ones(3)), dt=0.1, steps=3, guess=(Q, Q), gradient=eg.Backprop()
    ),
    "solve, an energy of a Lagrangian with another size": lambda: eg.solve(
        Swing(), eg.InitialValue(jnp.ones(2), jnp.ones(2)), dt=0.1, steps=3, cost=lambda t, q, p: q
    ),
    "energy, inputs left out": lambda: eg.energy(
        DRIVEN, eg.solve(DRIVEN, START, jnp.ones((3, 2)), dt=0.1, gradient=eg.Backprop())
    ),
    "energy, another system": lambda: eg.energy(Osc(jnp.ones(3)), SOL),
    "equilibrium, an energy of s": lambda: eg.equilibrium(lambda s: jnp.sum(s), Q),
    "check_gradients, a loss of one": lambda: eg.check_gradients(lambda k: jnp.sum(k), jnp.ones(2)),
    "check_gradients, nothing": lambda: eg.check_gradients(loss, jnp.zeros(0)),
    "nudge_sweep, without strength": lambda: eg.nudge_sweep(loss, jnp.ones(2), [0.1], nudge=eg.Infinitesimal),
    "nudge_sweep, half a repeat": lambda: eg.nudge_sweep(loss, jnp.ones(2), [0.1], noise=0.1, repeats=2.5),
    "equivalence, no triple": lambda: eg.equivalence({"a": 5}),
    "audit, no pair": lambda: eg.audit(S, {"a": 5}, dt=0.1, steps=5),
    "device.survey, a loss of many": lambda: eg.device.survey(
        lambda s: s.q[-1], S, START, dt=0.1, steps=2, nudge=eg.Symmetric(0.01)
    ),
    "device.Simulated, a plant of nothing": lambda: eg.device.run(
        eg.device.Simulated(plant=lambda m: None), S, START, dt=0.1, steps=2, nudge=eg.Symmetric(0.1)
    ),
    "device.run, experiment": lambda: eg.device.run(
        eg.device.Simulated(), S, START, dt=0.1, steps=2, nudge=eg.Symmetric(0.1), experiment=2**40
    ),
    "SelfLearningMachine, a target": lambda: MACHINE.learn(*FIELD, "x"),
    "SelfLearningMachine, another size": lambda: MACHINE.learn(FIELD[0], (jnp.ones(3), jnp.ones(3)), Q),
    "Kepler, a batch": lambda: eg.systems.Kepler(mass=jnp.ones(3)).start(),
    "wave, two sizes": lambda: eg.wave(Q, jnp.ones(3)),
    "HSSM, a key for each": lambda: eg.nn.HSSM(2, 3, hidden=4, units=4, blocks=1, key=KEY)(
        jnp.ones((2, 5, 2)), key=jax.random.split(KEY)
    ),
}


def cases():
    for name, (function, arguments, kinds) in TABLE.items():
        for argument, kind in kinds.items():
            yield pytest.param(function, arguments, argument, WRONG[kind], id=f"{name}: {argument}")


OWNERS = {re.split(r"[,.]", re.sub(r"^(systems|nn|device|friction)\.", "", name))[0] for name in TABLE} | {"where"}


def complaint(call):
    """Return what is wrong with how a call is refused, or `None`."""
    try:
        found = call()
    except (TypeError, ValueError, eqx.EquinoxRuntimeError) as error:
        sentence = str(error).split("equinox.EquinoxRuntimeError: ")[-1].strip()
        owner = re.match(r"(?:device\.)?(\w+)", sentence)
        return None if owner and owner[1] in OWNERS else f"{type(error).__name__}: {sentence[:150]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    return f"accepted: {str(found)[:60]}"


@pytest.mark.parametrize(("function", "arguments", "argument", "values"), list(cases()))
def test_a_wrong_argument_is_refused_clearly(function, arguments, argument, values):
    found = {str(value)[:40]: complaint(lambda x=value: function(**{**arguments, argument: x})) for value in values}
    assert {value: words for value, words in found.items() if words} == {}


@pytest.mark.parametrize("call", TOGETHER.values(), ids=TOGETHER)
def test_what_does_not_fit_together_is_refused_clearly(call):
    assert complaint(call) is None


def test_a_user_error_is_the_cause_of_ours():
    with pytest.raises(
        TypeError, match=r"solve: potential\(t, q, u\) failed for t=f\d+\[\], q=f\d+\[2\], u=None: "
    ) as found:
        eg.solve(DRIVEN, START, dt=0.1, steps=3)
    assert isinstance(found.value.__cause__, TypeError)


@pytest.mark.parametrize("derivative", [jax.jacfwd, lambda f: lambda k: jax.jvp(f, (k,), (k,))], ids=["jacfwd", "jvp"])
def test_forward_mode_is_refused_in_our_words(derivative):
    def last(k, gradient):
        return eg.solve(Osc(k), START, dt=0.1, steps=2, gradient=gradient).q[-1]

    for gradient in (eg.Echo(), eg.Glep()):
        with pytest.raises(TypeError, match=r"^solve: forward mode .* Use reverse mode .* or gradient=Backprop"):
            derivative(lambda k, g=gradient: last(k, g))(jnp.ones(2))
    with pytest.raises(TypeError, match=r"^equilibrium: forward mode"):
        derivative(lambda k: eg.equilibrium(lambda s, u: jnp.sum((s - k) ** 2), Q).state)(jnp.ones(2))


# What holds results or is to be derived from; and the classes and functions that extensions are written with.
EXEMPT = {
    "AuditReport",
    "EquivalenceReport",
    "EchogradError",
    "RESULTS",
    "ArgumentError",
    "ArgumentTypeError",
    "RunError",
    "plain_errors",
    "Diagnosis",
    "Equilibrium",
    "GradientReport",
} | {
    *("NudgeSweep", "Trajectory", "Dissipative", "Hamiltonian", "Lagrangian", "SeparableHamiltonian"),
    *("SplitHamiltonian", "device.RunId", "device.Order", "device.Record", "device.Survey"),
    *("friction.Instant", "friction.Shear", "friction.Scaling", "friction.Decrease"),
}


def test_the_table_has_every_public_callable():
    here = {re.split(r"[,]", name)[0] for name in TABLE}
    for prefix, module in (
        ("", eg),
        ("systems.", eg.systems),
        ("friction.", eg.friction),
        ("nn.", eg.nn),
        ("device.", eg.device),
    ):
        for name, found in vars(module).items():
            if not callable(found) or inspect.ismodule(found) or name.startswith(("_", "Abstract")):
                continue
            assert prefix + name in here | EXEMPT or name in here | EXEMPT, prefix + name
