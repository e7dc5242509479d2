"""Sums over the steps of a loop, with what is the same at every step taken out of them."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jax.extend.core.primitives import neg_p
from jaxtyping import PyTree

from .. import _tree
from ._cores import on_all_cores
from ._flat import SMALL, flat, hashable
from ._once import arrange

# Linear in the first operand: element by element, a second operand being the same at every step, or another way.
_ELEMENTWISE = {"mul", "div", "neg"}
_REARRANGING = {"reduce_sum", "broadcast_in_dim", "reshape", "squeeze", "transpose"}
_MOST_PIECES = 8


class _Act(NamedTuple):
    """A linear operation that is the same at every step; its partner is a number, a variable, or `None`."""

    primitive: Any
    params: tuple[tuple[str, Any], ...] = ()
    partner: Any = None

    def of(self, x: Any, known: dict[Any, Any]) -> Any:
        partner = () if self.partner is None else (known.get(self.partner, self.partner),)
        return self.primitive.bind(x, *partner, **dict(self.params))


class _Core(NamedTuple):
    """What is left to be summed: a variable, a product of two cores, or a sum of pieces."""

    variable: Any = None
    factors: tuple["_Core", ...] = ()
    pieces: tuple["_Piece", ...] = ()

    def variables(self) -> Iterable[Any]:
        """Yield the variables it is made of."""
        if self.variable is not None:
            yield self.variable
        for factor in self.factors:
            yield from factor.variables()
        for piece in self.pieces:
            yield from piece.core.variables()
            yield from piece.partners()

    def value(self, known: dict[Any, Any]) -> Any:
        if self.variable is not None:
            return known[self.variable]
        if self.factors:
            a, b = self.factors
            return a.value(known) * b.value(known)
        return _tree.sum_of([piece.of(piece.core.value(known), known) for piece in self.pieces])


class _Piece(NamedTuple):
    """Operations upon a core, the first one first."""

    acts: tuple[_Act, ...]
    core: _Core

    def partners(self) -> Iterable[Any]:
        """Yield the variables that stand beside it."""
        return (act.partner for act in self.acts if act.partner is not None and not isinstance(act.partner, np.generic))

    def of(self, x: Any, known: dict[Any, Any]) -> Any:
        for act in self.acts:
            x = act.of(x, known)
        return x


def summed(step: Callable[[Any, Any], tuple[Any, PyTree]], steps: Any, state: Any) -> tuple[Any, PyTree]:
    r"""Return the state after so many steps `(k, state) -> (state, x)`, and the sum of all `x`.

    $\sum_k L(y_k) = L(\sum_k y_k)$ for a linear map $L$ that is the same at every step: a product with parameters, a
    sign, a sum over an axis. On a CPU these maps are taken out of the loop, and where several $x$ are made of the same
    $y$, as the readings of mass, length and gravity of a pendulum are, that is summed once. Numbers are the same up to
    rounding.
    """
    first, end = jnp.asarray(0, jnp.int32), jnp.asarray(steps, jnp.int32)
    if jax.default_backend() != "cpu":
        zeros = _tree.zeros_like(jax.eval_shape(step, first, state)[1])

        def plainly(k: Any, carry: Any) -> Any:
            state, x = step(k, carry[0])
            return state, _tree.add(carry[1], x)

        return jax.lax.fori_loop(first, end, plainly, (state, zeros))

    leaves = jax.tree.leaves(state)
    jaxpr, consts, results = flat(step, first, state)
    constants = dict(zip(jaxpr.constvars, consts, strict=True))
    own, added = jaxpr.outvars[: len(leaves)], jaxpr.outvars[len(leaves) :]
    plans = _plans(_Program(jaxpr), added)
    pieces = [piece for plan in plans for piece in plan]
    cores = list(dict.fromkeys(piece.core for piece in pieces))
    inner = list(dict.fromkeys(v for core in cores for v in core.variables()))

    def stepped(k: Any, leaves: list[Any]) -> tuple[list[Any], list[Any]]:
        known = constants | dict(zip(jaxpr.invars, (k, *leaves), strict=True))
        found = arrange(jaxpr, known, [*own, *inner])
        known = dict(zip(inner, found[len(own) :], strict=True))
        return found[: len(own)], [core.value(known) for core in cores]

    def advance(k: Any, carry: Any) -> Any:
        leaves, x = stepped(k.astype(first.dtype), carry[0])
        return leaves, _tree.add(carry[1], x)

    zeros = _tree.zeros_like(jax.eval_shape(stepped, first, leaves)[1])
    leaves, totals = on_all_cores(advance, first, end, (leaves, zeros))
    total = dict(zip(cores, totals, strict=True))
    lasting = [v for v, plan in zip(added, plans, strict=True) if not plan and not isinstance(v, Literal)]
    outer = list(dict.fromkeys([*lasting, *(v for piece in pieces for v in piece.partners())]))
    known = dict(zip(outer, arrange(jaxpr, constants, outer, effects=False), strict=True))

    def sum_of(v: Any, plan: list[_Piece]) -> Any:
        if plan:
            return _tree.sum_of([piece.of(total[piece.core], known) for piece in plan])
        x = jnp.asarray(v.val if isinstance(v, Literal) else known[v])
        return jnp.asarray(steps, x.dtype) * x

    return jax.tree.unflatten(results, [*leaves, *map(sum_of, added, plans)])


class _Program:
    """What the variables of a flat jaxpr are made of."""

    def __init__(self, jaxpr: Any) -> None:
        self.made = {v: equation for equation in jaxpr.eqns for v in equation.outvars}
        every = itertools.chain(jaxpr.constvars, jaxpr.invars, self.made)
        self.rank = {v: i for i, v in enumerate(every)}
        self.lasting = set(jaxpr.constvars)
        for equation in jaxpr.eqns:
            if not equation.effects and all(map(self.lasts, equation.invars)):
                self.lasting.update(equation.outvars)
        self.pieces: dict[Any, list[_Piece]] = {}
        for v in self.rank:
            self.pieces[v] = self.taken_apart(v)

    def lasts(self, atom: Any) -> bool:
        """Return whether something is the same at every step."""
        return isinstance(atom, Literal) or atom in self.lasting

    def taken_apart(self, v: Any) -> list[_Piece]:
        """Return what a variable is the sum of, from what its operands are."""
        equation = self.made.get(v)
        whole = [_Piece((), _Core(v))]
        if equation is None or len(equation.outvars) > 1 or self.lasts(v) or not equation.invars:
            return whole
        if not jnp.issubdtype(v.aval.dtype, jnp.inexact):  # divisions of integers are not linear
            return whole
        name, (a, *others) = equation.primitive.name, equation.invars
        if (
            name in ("add", "add_any", "sub")
            and not any(isinstance(x, Literal) for x in (a, *others))
            and a.aval.shape == others[0].aval.shape == v.aval.shape
        ):
            second = self.pieces[others[0]]
            if name == "sub":
                second = [self.acted(piece, _Act(neg_p)) for piece in second]
            found = self.gathered([*self.pieces[a], *second])
            worth = found[0].acts if len(found) == 1 else all(any(piece.partners()) for piece in found)
            return found if worth and len(found) <= _MOST_PIECES else whole
        if name == "mul" and self.lasts(a):
            a, others = others[0], [a]
        if name in _ELEMENTWISE and all(map(self.lasts, others)):
            beside = others[0] if others else None
            partner = np.asarray(beside.val)[()] if isinstance(beside, Literal) else beside
            act = _Act(equation.primitive, hashable(equation.params), partner)
            fits = not isinstance(a, Literal) and a.aval.shape == v.aval.shape and _is_moderate(partner)
            return [self.acted(piece, act) for piece in self.pieces[a]] if fits else whole
        if name in _REARRANGING and not others and hashable(equation.params) is not None:
            act = _Act(equation.primitive, hashable(equation.params))
            return [self.acted(piece, act) for piece in self.pieces[a]]
        if name == "mul" and a.aval.shape == others[0].aval.shape:
            return [self.product((a, others[0]))]
        return whole

    def acted(self, piece: _Piece, act: _Act) -> _Piece:
        """Return a piece with one more operation, those that commute being in a fixed order."""
        acts = [*piece.acts, act]
        last = next((i + 1 for i in reversed(range(len(acts))) if acts[i].primitive.name in _REARRANGING), 0)
        return _Piece((*acts[:last], *sorted(acts[last:], key=self.order)), piece.core)

    def order(self, act: _Act) -> Any:
        partner = act.partner
        number = partner is None or isinstance(partner, np.generic)
        return act.primitive.name, str(partner) if number else "", -1 if number else self.rank[partner]

    def product(self, others: tuple[Any, Any]) -> _Piece:
        """Return a product of variables as one piece, with what is the same at every step taken out of both."""
        factors, acts = [], []
        for other in others:
            pieces = self.pieces[other]
            rearranged = any(act.primitive.name in _REARRANGING for act in pieces[0].acts)
            if len(pieces) > 1 or rearranged or pieces[0].core.variable is None:
                pieces = [_Piece((), _Core(other))]
            factors.append(pieces[0].core)
            acts += pieces[0].acts
        factors.sort(key=lambda core: self.rank[core.variable])
        found = _Piece((), _Core(factors=tuple(factors)))
        for act in acts:
            found = self.acted(found, act)
        return found

    def gathered(self, pieces: list[_Piece]) -> list[_Piece]:
        """Return the same sum with the cores of one shape that are acted on alike in one."""
        alike: dict[Any, list[_Core]] = {}
        for acts, core in pieces:
            like = self.like(core)
            alike.setdefault((acts, like.shape, like.dtype), []).append(core)
        return [
            _Piece(acts, cores[0] if len(cores) == 1 else _Core(pieces=tuple(_Piece((), core) for core in cores)))
            for (acts, *_), cores in alike.items()
        ]

    def size(self, core: _Core) -> int:
        """Return how many bytes a core takes."""
        like = self.like(core)
        return like.size * like.dtype.itemsize

    def like(self, core: _Core) -> Any:
        """Return shape and dtype of a core, none of whose pieces is acted upon."""
        if core.variable is not None:
            return core.variable.aval
        return self.like(core.factors[0] if core.factors else core.pieces[0].core)


def _is_moderate(partner: Any) -> bool:
    """Return whether the order of this and other factors does not matter to the range of floats."""
    return not isinstance(partner, np.generic) or 1e-6 < np.abs(partner) < 1e6


def _plans(program: _Program, added: Any) -> list[list[_Piece]]:
    """Return pieces for every summand: all of them, or one where else much more would be summed than the summands.

    There are none for what is the same at every step.
    """
    plans = [[] if program.lasts(v) else program.pieces[v] for v in added]
    # Summands that share a core, directly or over others, go together.
    groups: list[set[int]] = []
    for i, plan in enumerate(plans):
        cores = {piece.core for piece in plan}
        linked = [g for g in groups if any(cores & {piece.core for piece in plans[j]} for j in g)]
        groups = [g for g in groups if g not in linked] + [{i}.union(*linked)]
    for group in groups:
        apart = sum(map(program.size, {piece.core for i in group for piece in plans[i]}))
        if apart > max(SMALL, sum(program.size(_Core(added[i])) for i in group if plans[i])):
            for i in group:
                if plans[i]:
                    plans[i] = [_whole(plans[i], added[i])]
    return plans


def _whole(plan: list[_Piece], v: Any) -> _Piece:
    """Return a summand as one piece, with those operations taken out that come last in all of its pieces."""
    common = []
    for acts in zip(*(piece.acts[::-1] for piece in plan), strict=False):
        if len(set(acts)) > 1 or acts[0].primitive.name in _REARRANGING:
            break
        common.insert(0, acts[0])
    if not common:
        return _Piece((), _Core(v))
    inner = tuple(_Piece(piece.acts[: len(piece.acts) - len(common)], piece.core) for piece in plan)
    alone = len(inner) == 1 and not inner[0].acts
    return _Piece(tuple(common), inner[0].core if alone else _Core(pieces=inner))
