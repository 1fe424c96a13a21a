"""efax: natural and expectation parametrisations as classes, a batch in each object."""

from collections.abc import Callable
from typing import Any

import efax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers._cells import (
    UPPER,
    UPPER_HALF,
    Cell,
    columns,
    halves,
    mirrored,
    only,
    permuted,
    stacked,
    whole,
)
from benchmarks.peers._laws import FAILED


def _cells(
    natural: Any,
    expectation: Any,
    fields: tuple[str, ...],
    moments: tuple[str, ...],
    pack: Callable = whole,
    read: Callable = only,
    shift: float | np.ndarray = 0.0,
    pack_eta: Callable | None = None,
    read_eta: Callable | None = None,
    metric: Callable = np.asarray,
) -> dict[str, Cell]:
    """From the names of the fields, and how θ (less `shift`) and η fill them."""

    def packed(theta):
        return pack((theta - np.asarray(shift, theta.dtype)).astype(theta.dtype))

    def values(law, names):
        return tuple(getattr(law, name) for name in names)

    def to_eta(*parts):
        return values(natural(*parts).to_exp(), moments)

    def to_theta(*parts):
        return values(expectation(*parts).to_nat(), fields)

    def kl(*parts):
        half = len(parts) // 2
        return natural(*parts[:half]).kl_divergence(natural(*parts[half:]))

    def fisher(*parts):
        return natural(*parts)._fisher_information_matrix()  # its only way to a whole matrix

    return {
        "to_eta": Cell(packed, to_eta, read_eta or read),
        "to_theta": Cell(pack_eta or pack, to_theta, lambda v: read(v).astype(float) + shift),
        "kl": Cell(packed, kl, np.asarray),
        "fisher": Cell(packed, fisher, metric),
    }


def _scalar(name: str, field: str, moment: str, shift: float = 0.0) -> dict[str, Cell]:
    natural, expectation = getattr(efax, name + "NP"), getattr(efax, name + "EP")
    parts = columns(0), stacked(0)
    return _cells(natural, expectation, (field,), (moment,), *parts, shift)


def _vector(name: str, field: str, moment: str, shift: float = 0.0) -> dict[str, Cell]:
    natural, expectation = getattr(efax, name + "NP"), getattr(efax, name + "EP")
    return _cells(natural, expectation, (field,), (moment,), whole, only, shift)


def _negative_binomial() -> dict[str, Cell]:
    def of(law):
        return lambda x: law(x, jnp.full(x.shape, FAILED))

    return _cells(
        of(efax.NegativeBinomialNP),
        of(efax.NegativeBinomialEP),
        ("log_not_p",),
        ("mean",),
        columns(0),
        stacked(0),
    )


def _gaussian() -> dict[str, Cell]:
    return _cells(
        efax.MultivariateNormalNP,
        efax.MultivariateNormalEP,
        ("mean_times_precision", "negative_half_precision"),
        ("mean", "second_moment"),
        lambda x: mirrored(x, True),
        lambda v: halves(v, True),
        pack_eta=lambda x: mirrored(x, False),
        read_eta=lambda v: halves(v, False),
        metric=permuted(UPPER, UPPER_HALF),  # it is in units of −½Λᵢⱼ
    )


FAMILIES: dict[str, Callable[[], dict[str, Cell]]] = {
    "bernoulli": lambda: _scalar("Bernoulli", "log_odds", "probability"),
    "categorical-10": lambda: _vector("Categorical", "log_odds", "probability"),
    "poisson": lambda: _scalar("Poisson", "log_mean", "mean"),
    "exponential": lambda: _scalar("Exponential", "negative_rate", "mean"),
    "gamma": lambda: _cells(
        efax.GammaNP,
        efax.GammaEP,
        ("negative_rate", "shape_minus_one"),
        ("mean", "mean_log"),
        columns(1, 0),
        stacked(1, 0),
        shift=np.array([1.0, 0.0]),
        metric=permuted([1, 0]),
    ),
    "dirichlet-10": lambda: _vector("Dirichlet", "alpha_minus_one", "mean_log_probability", 1.0),
    "beta": lambda: _vector("Beta", "alpha_minus_one", "mean_log_probability", 1.0),
    "normal": lambda: _cells(
        efax.NormalNP,
        efax.NormalEP,
        ("mean_times_precision", "negative_half_precision"),
        ("mean", "second_moment"),
        columns(0, 1),
        stacked(0, 1),
    ),
    "normal-5d": _gaussian,
    "von-mises-fisher-3": lambda: _vector("VonMisesFisher", "mean_times_concentration", "mean"),
    "inverse-gaussian": lambda: _cells(
        efax.InverseGaussianNP,
        efax.InverseGaussianEP,
        ("negative_lambda_over_two_mu_squared", "negative_lambda_over_two"),
        ("mean", "mean_reciprocal"),
        columns(0, 1),
        stacked(0, 1),
    ),
    "negative-binomial": _negative_binomial,
    "chi-square": lambda: _scalar("ChiSquare", "k_over_two_minus_one", "mean_log", 1.0),
}
