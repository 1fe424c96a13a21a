"""What a peer offers of one family, as functions of its own arrays, and how those are ours."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers._laws import COLUMNS, ROWS, D

CELLS = ("to_eta", "to_theta", "kl", "fisher")


class Cell(NamedTuple):
    """One computation of a peer.

    `pack` makes its arguments, a tuple of arrays, from ours: θ, η, or θ and θ′ (twice packed);
    `call` is what is timed; `read` turns its value into η, θ, KL or the metric in our coordinates.
    Where arguments are no natural parameters, `held` says which θ one row of them is.
    """

    pack: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    call: Callable[..., Any]
    read: Callable[[Any], np.ndarray]
    held: Callable[[tuple], list] | None = None


def columns(*order: int) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    """The entries of points in this order, each an array of its own."""
    return lambda x: tuple(np.ascontiguousarray(x[:, i]) for i in order)


def stacked(*order: int) -> Callable[[Any], np.ndarray]:
    """Back from `columns`."""

    def read(parts):
        back = [None] * len(order)
        for i, part in zip(order, parts, strict=True):
            back[i] = np.asarray(part)
        return np.stack(back, -1)

    return read


def whole(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (x,)


def only(parts: Any) -> np.ndarray:
    return np.asarray(parts[0] if isinstance(parts, tuple) else parts)


def permuted(order: Any, scale: Any = 1.0) -> Callable[[Any], np.ndarray]:
    """A metric in coordinates cⱼ = scaleⱼ θ_order(j), in those of θ."""

    def read(value):
        matrix = np.asarray(value, np.float64) * np.multiply.outer(scale, scale)
        back = np.argsort(order)
        return matrix[:, back][:, :, back]

    return read


def mirrored(x: np.ndarray, halved: bool) -> tuple[np.ndarray, np.ndarray]:
    """The linear part (batch, d) and the matrix (batch, d, d) of a point of a multivariate normal."""
    entries = x[:, D:] * np.where((ROWS != COLUMNS) & halved, 0.5, 1.0).astype(x.dtype)
    matrix = np.zeros((len(x), D, D), x.dtype)
    matrix[:, ROWS, COLUMNS] = entries
    matrix[:, COLUMNS, ROWS] = entries
    return x[:, :D], matrix


def halves(parts: Any, doubled: bool) -> np.ndarray:
    """Back from `mirrored`."""
    entries = np.asarray(parts[1])[:, ROWS, COLUMNS]
    scale = np.where((ROWS != COLUMNS) & doubled, 2.0, 1.0)
    return np.concatenate([np.asarray(parts[0]), entries * scale], 1)


# Row by row of the upper triangle, where ours is that of the lower.
_UPPER = np.triu_indices(D)
UPPER = np.concatenate(
    [np.arange(D), D + np.array([j * (j + 1) // 2 + i for i, j in zip(*_UPPER, strict=True)])]
)
UPPER_HALF = np.concatenate([np.ones(D), np.where(_UPPER[0] == _UPPER[1], 1.0, 0.5)])
