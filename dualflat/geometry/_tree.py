"""Classes as pytrees that JAX's caches tell apart.

JAX compares the structure of two trees to know whether it has compiled for them before, and of two
classes registered by `jax.tree_util.register_dataclass` it compares fields but not classes (JAX
0.10 to 0.12): `Softplus(3)` and `LogCosh(3)` are one key. Their hashes differ, so that one program
is only now and then taken for the other's. `register` makes classes that are never confused;
`compiled` is `jax.jit` that does not confuse other people's either.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer
from jax.tree_util import GetAttrKey, Partial

_Class = TypeVar("_Class", bound=type)
_Words = ParamSpec("_Words")
_Result = TypeVar("_Result")


def register(cls: _Class) -> _Class:
    """A dataclass as a pytree: its fields are children, but for those marked `static`.

    As `jax.tree_util.register_dataclass`, whose marks it reads; only that a tree is put together
    again without `__init__`, which may have checked values that are tracers by then.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    static = {field.name for field in dataclasses.fields(cls) if field.metadata.get("static")}
    data, meta = ([n for n in names if (n in static) == which] for which in (False, True))

    def flatten(tree: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(tree, n) for n in data), tuple(getattr(tree, n) for n in meta)

    def flatten_with_keys(tree: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, aux = flatten(tree)
        return tuple(zip(map(GetAttrKey, data), children, strict=True)), aux

    def unflatten(aux: tuple[Any, ...], children: Iterable[Any]) -> Any:
        tree = object.__new__(cls)
        for name, value in (*zip(data, children, strict=True), *zip(meta, aux, strict=True)):
            object.__setattr__(tree, name, value)
        return tree

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def settle_size(tree: Any, name: str, least: int, meaning: str) -> None:
    """Make the size `tree.name` a Python integer, in a constructor; NumPy's integers are allowed.

    Raises:
      ValueError: for what is no integer, or below `least`.
    """
    size = getattr(tree, name)
    try:
        number = None if isinstance(size, bool | np.bool_) else operator.index(size)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(
            f"{type(tree).__name__}: {name} is {size!r}. Wanted an integer of at least {least}:"
            f" {meaning}."
        )
    object.__setattr__(tree, name, number)


def known_numbers(leaf: Any) -> np.ndarray | None:
    """The numbers at a leaf; None for a tracer, and for what stands for numbers in a tree."""
    if isinstance(leaf, Tracer):
        return None
    try:
        return np.asarray(leaf, np.float64)
    except (TypeError, ValueError):
        return None


def compiled(
    fn: Callable[_Words, _Result], static: tuple[int, ...] = ()
) -> Callable[_Words, _Result]:
    """`jax.jit(fn, static_argnums=static)` for positional arguments, their classes in the key."""

    def with_kinds(kinds, *args):
        del kinds
        return fn(*args)  # pyright: ignore[reportCallIssue]

    with_kinds.__name__ = getattr(fn, "__name__", "compiled")  # what profiles and errors show
    jitted = jax.jit(with_kinds, static_argnums=(0, *(i + 1 for i in static)))

    @functools.wraps(fn)
    def call(*args):
        return jitted(_kinds(args), *args)

    return call  # pyright: ignore[reportReturnType]


def as_tree(fn: Any) -> Any:
    """`fn` as a pytree of arrays: functions, itself or at its leaves, become trees without leaves."""
    if not any(map(callable, jax.tree.leaves(fn))):
        return fn
    return jax.tree.map(lambda leaf: Partial(leaf) if callable(leaf) else leaf, fn)


def _kinds(tree: Any) -> tuple[Any, ...] | None:
    """The classes of all nodes of a tree, nested as they are; None for a leaf."""
    level = jax.tree_util.default_registry.flatten_one_level(tree)
    return None if level is None else (type(tree), *map(_kinds, level[0]))
