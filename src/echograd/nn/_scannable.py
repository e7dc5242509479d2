"""Methods that `jax.lax.scan` and `jax.jit` accept directly."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import equinox as eqx

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Bound(eqx.Module):
    """A bound method: a PyTree like Equinox's bound methods, but hashed by identity.

    `jax.lax.scan` and `jax.jit` cache traced functions by their hash. Equinox hashes a bound method by the arrays of
    its module, which are not hashable.
    """

    function: Callable[..., Any] = eqx.field(static=True)
    module: eqx.Module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.module, *args, **kwargs)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class scannable(Generic[_P, _R]):
    """Decorate a method of a module so that `jax.lax.scan` and `jax.jit` accept it without a lambda."""

    def __init__(self, function: Callable[Concatenate[Any, _P], _R]) -> None:
        self.function = function
        functools.update_wrapper(self, function)  # pyright: ignore[reportArgumentType]

    @overload
    def __get__(self, module: None, owner: type) -> "scannable[_P, _R]": ...
    @overload
    def __get__(self, module: eqx.Module, owner: type) -> Callable[_P, _R]: ...
    def __get__(self, module: eqx.Module | None, owner: type) -> Any:
        return self if module is None else _Bound(self.function, module)

    def __call__(self, module: Any, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self.function(module, *args, **kwargs)
