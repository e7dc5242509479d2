"""Write docs/api.md: every public name of echograd, grouped as a newcomer thinks, with the first line of its docstring.

Run it after adding, renaming or rewording a public name: `python scripts/write_api.py`. It reads the sources and
imports nothing, so the same sources give the same page. It raises for a name that is in no group below.
"""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "echograd"
PAGE = ROOT / "docs" / "api.md"

HEAD = """# All public names

Written by `python scripts/write_api.py` from the docstrings; do not edit.

The names after `import echograd as eg`. Each one links to the file with its docstring, which has the mathematics,
arguments, errors, source and an example; `help(eg.solve)` prints it. [extending.md](extending.md) explains how to write
your own systems, boundary conditions, integrators, nudges, gradients and machines.

The examples run after these lines:

```python
import echograd as eg, equinox as eqx, jax, jax.numpy as jnp, numpy as np
from echograd import plot
from jax import Array

system = eg.systems.DuffingNetwork()
q, p = system.start()
start = boundary = eg.InitialValue(q, p)
key = jax.random.key(0)


def loss(system, gradient=eg.Echo()):
    sol = eg.solve(system, start, dt=0.1, steps=20, gradient=gradient)
    return jnp.sum(sol.q[-1] ** 2)
```
"""


class Group(NamedTuple):
    """A section of the page: its title, an introduction, and its names. `part.*` is the rest of a part."""

    title: str
    about: str
    names: str


GROUPS = (
    Group(
        "Systems",
        "Derive from one of these. The array fields of the class are its trainable parameters.",
        "SeparableHamiltonian Hamiltonian Lagrangian SplitHamiltonian legendre "
        "MassDamped Envelope Dissipative LinearDamped MovingParameters canonical wave",
    ),
    Group(
        "Friction",
        "A system with any friction, whose exact gradient is `Rewind()`.",
        "Damped friction.Border friction.FrictionMatrix friction.Drag friction.Langevin friction.NoseHoover",
    ),
    Group(
        "Ready-made systems",
        "Each has trainable parameters and a `start()` that returns a representative initial state.",
        "systems.OscillatorNetwork systems.DuffingNetwork systems.FPUTChain systems.PendulumChain systems.SineGordon "
        "systems.LCLadder systems.WaveField systems.AcousticField "
        "systems.DoublePendulum systems.SphericalPendulum systems.ChargedParticle "
        "systems.Kepler systems.NBody systems.KerrLattice systems.NonlinearSchroedinger",
    ),
    Group(
        "Parts of split energies",
        "What the `parts` of a `SplitHamiltonian` return.",
        "systems.Kinetic systems.Potential systems.Intensities systems.Hopping systems.Dispersion systems.Drive",
    ),
    Group(
        "Boundary conditions",
        "Conditions on the two ends of a trajectory.",
        "InitialValue FinalValue FixedEnds FreeEnds MixedEnds Periodic Robin LinearBoundary dual defect",
    ),
    Group(
        "Solving",
        "`solve`, its result, and its options.",
        "solve Trajectory RESULTS energy velocity AllNodes FinalNode EveryNode AtNodes AtTimes solutions "
        "TwoPointNewton",
    ),
    Group(
        "Integrators",
        "The step map. By default `solve` chooses one for the system.",
        "Leapfrog VelocityVerlet Yoshida SplitStep ImplicitMidpoint",
    ),
    Group(
        "Gradients",
        "How a trajectory is differentiated: `solve(..., gradient=...)`.",
        "Echo Glep Backprop SameBoundary Reciprocal Rewind",
    ),
    Group(
        "Nudges",
        "How an echo takes the derivative with respect to the strength of its nudge: `Echo(nudge)`, `Glep(nudge)`.",
        "Infinitesimal Symmetric OneSided Richardson Holomorphic Noisy",
    ),
    Group(
        "Checks",
        "Find out which gradient is exact, how exact it is, and what it costs.",
        "diagnose Diagnosis check_gradients GradientReport retrace_error nudge_sweep NudgeSweep audit AuditReport "
        "equivalence EquivalenceReport",
    ),
    Group(
        "Errors",
        "Catch `EchogradError` to handle all of them.",
        "EchogradError ArgumentError ArgumentTypeError RunError plain_errors",
    ),
    Group(
        "Equilibria",
        "The static limit: equilibrium propagation.",
        "equilibrium Equilibrium EP Implicit Relaxation LayerwiseRelaxation Newton",
    ),
    Group("Machines that learn by themselves", "Hamiltonian echo backpropagation.", "SelfLearningMachine"),
    Group(
        "Sequence models and networks",
        "Equinox modules whose gradient is an echo.",
        "nn.LinearHRU nn.NonlinearHRU nn.DampedHRU nn.HSSM nn.LayerNorm nn.BatchNorm "
        "nn.HopfieldNet nn.HopfieldClassifier nn.ResistiveNet nn.*",
    ),
    Group(
        "Devices",
        "Machines that can be run and read but not differentiated, and their imperfections.",
        "device.run device.retrace_error device.survey device.Survey device.Simulated device.Hosted "
        "device.Order device.Record device.Mismatch device.Drift device.Friction device.ForceNoise device.ReadoutNoise "
        "device.ImperfectMirror device.Quantisation device.*",
    ),
    Group(
        "Data",
        "Data sets by name, and readers of published files: `eg.data` is short for `eg.workbench.data`.",
        "workbench.data.load workbench.data.available workbench.data.data_folder workbench.data.Dataset "
        "workbench.data.Split workbench.data.Batches workbench.data.*",
    ),
    Group(
        "Training",
        "Needs the extra `workbench`. `eg.training` is short for `eg.workbench.training`.",
        "workbench.training.fit workbench.training.recipe workbench.training.Config workbench.training.Network "
        "workbench.training.Optimiser workbench.training.ecg_recipe workbench.training.Run workbench.training.*",
    ),
    Group(
        "Estimators",
        "In the manner of scikit-learn, for sequences. They need the extra `workbench`; `eg.SequenceClassifier` and "
        "`eg.SequenceRegressor` are short names.",
        "workbench.estimators.SequenceClassifier workbench.estimators.SequenceRegressor workbench.estimators.*",
    ),
    Group(
        "Plots",
        "Needs the extra `plot`. Every function draws on the axes it is given.",
        "plot.figure plot.style plot.*",
    ),
    Group(
        "Reports and the command line",
        "`echograd --help` lists the commands.",
        "workbench.report.* workbench.cli.*",
    ),
    Group(
        "For extensions",
        "Base classes, and the building blocks of `solve`. See [extending.md](extending.md).",
        "systems.AbstractSystem systems.AbstractPart boundary.AbstractBoundary integrators.AbstractIntegrator "
        "integrators.AbstractSplitting nudge.AbstractNudge nudge.AbstractFiniteNudge gradients.AbstractGradient "
        "gradients.AbstractNudgedGradient statics.AbstractStaticGradient statics.AbstractRelaxation systems.* "
        "friction.AbstractFriction friction.AbstractAction friction.* "
        "boundary.* integrators.* nudge.* problem.* two_point.* gradients.* statics.*",
    ),
)

# Aliases and tables, which cannot have a docstring.
ALIASES = {
    "integrators.State": "Coordinates and momenta, `(q, p)`: two PyTrees of the same structure.",
}


class Origin(NamedTuple):
    """Where a public name is defined."""

    file: Path
    name: str


def exports(package: Path) -> dict[str, Origin]:
    """Return the names that the `__init__.py` of a package exports, in its order: modules and underscores left out."""
    found = {}
    for node in _parsed(package / "__init__.py").body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is not None:
            below = package.joinpath(*node.module.split("."))
            for alias in node.names:
                name = alias.asname or alias.name
                if name[0] != "_":
                    whole = below.is_dir()
                    found[name] = exports(below)[alias.name] if whole else Origin(below.with_suffix(".py"), alias.name)
    return found


def public_names() -> dict[str, Origin]:
    """Return every public name below `echograd`, once: what the top level has is not listed again under a part."""
    names = exports(SOURCE)
    for package in sorted(path.parent for path in SOURCE.rglob("*/__init__.py")):
        part = ".".join(package.relative_to(SOURCE).parts)
        if not part or part.startswith("_"):
            continue
        known = set(names.values())
        names |= {f"{part}.{name}": where for name, where in exports(package).items() if where not in known}
    return names


def page() -> str:
    """Return the page.

    Raises:
        ValueError: if a name is in no group, a group has a name that does not exist, or a name has no docstring.
    """
    left = public_names()
    sections = [HEAD]
    for group in GROUPS:
        names = [name for pattern in group.names.split() for name in _matching(pattern, left)]
        lines = [_line(name, left.pop(name)) for name in dict.fromkeys(names)]
        sections.append("\n".join([f"## {group.title}", "", group.about, "", *lines, ""]))
    if left:
        raise ValueError(f"{', '.join(left)}: in no group. Add it to one in scripts/write_api.py.")
    return "\n".join(sections)


def _matching(pattern: str, names: dict[str, Origin]) -> list[str]:
    if pattern.endswith(".*"):
        return sorted((name for name in names if name.startswith(pattern[:-1])), key=str.lower)
    if pattern not in names:
        raise ValueError(f"{pattern} is in a group of scripts/write_api.py, but not (or no longer) in echograd.")
    return [pattern]


def _line(name: str, origin: Origin) -> str:
    if name in ALIASES:
        summary = ALIASES[name]
    else:
        kinds = ast.ClassDef | ast.FunctionDef
        nodes = [x for x in _parsed(origin.file).body if isinstance(x, kinds) and x.name == origin.name]
        texts = [text for text in map(ast.get_docstring, nodes) if text]
        if not texts:
            raise ValueError(f"{name} has no docstring. Write one, or a line in ALIASES of scripts/write_api.py.")
        summary = texts[0].partition("\n")[0]
    return f"- [`eg.{name}`](../{origin.file.relative_to(ROOT).as_posix()}): {summary}"


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
