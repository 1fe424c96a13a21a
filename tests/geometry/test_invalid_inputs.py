"""What is impossible never passes for a number: NaN, in the gradient too, and in its own row only.

What can be seen before tracing (shapes, dtypes, sizes, keys) is an error in words. What is known only
inside `jit` is data: the value is NaN and so is the gradient, so that whoever looks for NaN, an
optimiser or a store, finds it; and the other rows of a batch keep every bit.

A gradient is flagged if any of its entries is NaN: a sum over it is then NaN as well.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.base import entropy, kl, log_prob, sample
from dualflat.geometry.families.binomial import Bernoulli, Binomial
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.dirichlet import Dirichlet
from dualflat.geometry.families.finite import LogLinear
from dualflat.geometry.families.gamma import ChiSquare, Gamma
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.families.generalized_inverse_gaussian import GeneralizedInverseGaussian
from dualflat.geometry.families.inference import (
    fit,
    log_evidence,
    log_likelihood,
    posterior,
    statistics,
)
from dualflat.geometry.families.inverse_gaussian import InverseGaussian
from dualflat.geometry.families.logarithmic import Logarithmic
from dualflat.geometry.families.negative_binomial import NegativeBinomial
from dualflat.geometry.families.normal import Normal
from dualflat.geometry.families.normal_gamma import NormalGamma
from dualflat.geometry.families.poisson import Poisson, ZeroTruncatedPoisson
from dualflat.geometry.families.rates import Exponential
from dualflat.geometry.families.von_mises_fisher import VonMisesFisher
from dualflat.geometry.families.wishart import Wishart
from dualflat.geometry.jensen import alpha_divergence
from dualflat.geometry.legendre import conjugate, to_eta, to_theta
from dualflat.geometry.metric import metric

NAN, INF = math.nan, math.inf


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A family; one point, one event; θ in no domain; η of no law; events off the support (`off`).

    At `edges` of the domain, and at infinity, ψ may be its limit +∞; at those of the range (`faces`) φ
    is its limit, a number, while θ and the gradient of φ are not. `dual` names what is asked of η: less
    where a search takes long to compile.
    """

    family: Any
    theta: list
    event: Any
    outside: list = dataclasses.field(default_factory=list)
    unreachable: list = dataclasses.field(default_factory=list)
    edges: list = dataclasses.field(default_factory=list)
    faces: list = dataclasses.field(default_factory=list)
    off: list = dataclasses.field(default_factory=list)
    dual: tuple[str, ...] = ("theta", "phi")

    @property
    def bad(self):
        first = self.theta[1:]
        return [*self.outside, *self.edges, [NAN, *first], [INF, *first]]

    @functools.cached_property
    def tables(self):
        """Everything at good and bad points, at good ones alone, and at bad events; one program."""
        good, n = np.array(self.theta), len(self.theta)
        etas = [*self.unreachable, *self.faces, [NAN] * n]
        events = [*self.off, np.full(np.shape(self.event), NAN)]
        count = max(len(self.bad), len(etas), len(events))

        def fill(bad, point):
            middle = [np.asarray(b, float) for b in bad]
            return np.array([point, *middle, *[point] * (count - len(bad)), point])

        @jax.jit
        @jax.vmap
        def look(theta, eta, x):
            family = self.family
            found = {
                "psi": jax.value_and_grad(lambda t: family(t))(theta),
                "eta": _with_gradient(lambda t: to_eta(family, t), theta),
                "metric": _with_gradient(lambda t: metric(family, t), theta),
                "log p": jax.value_and_grad(lambda t: log_prob(family, t, x))(theta),
            }
            if "theta" in self.dual:
                found["theta"] = _with_gradient(lambda e: to_theta(family, e), eta)
            if "phi" in self.dual:
                found["phi"] = jax.value_and_grad(lambda e: conjugate(family, e))(eta)
            if "phi slope" in self.dual:
                found["phi slope"] = (jax.grad(lambda e: conjugate(family, e))(eta),) * 2
            return found

        x = fill([], self.event)
        eta = np.asarray(look(fill([], good), fill([], good), x)["eta"][0][0])
        mixed = look(fill(self.bad, good), fill(etas, eta), x)
        alone = look(fill([], good), fill([], eta), x)
        strange = look(fill([], good), fill([], eta), fill(events, self.event))
        return jax.tree.map(np.asarray, (mixed, alone, strange))

    def at_bad(self, name, first, count):
        """Value and gradient of the rows of a list that begins at row `first`."""
        value, slope = self.tables[0][name]
        rows = slice(1 + first, 1 + first + count)
        return value[rows].reshape(count, -1), slope[rows].reshape(count, -1)


def _with_gradient(f, point):
    value, pull = jax.vjp(f, point)
    return value, pull(jnp.ones_like(value))[0]


_PLANE = [0.5, -1.0, -0.75, 0.25, -0.5]  # (Λμ; −½Λ₁₁, −Λ₂₁, −½Λ₂₂)
_LEVELS = [[0.0, 0.0], [1.0, 1.0], [2.0, 4.0], [3.0, 9.0]]

ROWS = {
    "gamma": Row(
        Gamma(),
        [2.5, -3.0],
        1.5,
        outside=[[-0.5, -1.0], [0.0, -1.0], [1.0, 0.0], [1.0, 1.0], [1.0, -INF]],
        unreachable=[[1.0, 1.0], [-1.0, -1.0], [0.0, 1.0]],  # E log X ≥ log E X, E X < 0
        off=[0.0, -1.0, INF],
    ),
    "Dirichlet": Row(
        Dirichlet(3),
        [2.5, 0.75, 1.5],
        [0.25, 0.25, 0.5],
        # of the last two the signs of Γ cancel
        outside=[[-0.5, 2.0, 1.0], [0.0, 1.0, 1.0], [-1.5, -1.5, 10.0]],
        unreachable=[[-0.5, -0.5, -1.0], [0.5, -3.0, -1.0]],
        dual=("phi slope",),
        off=[[0.5, 0.6, 0.1], [1.5, -0.5, 0.0]],
    ),
    "chi-square": Row(
        ChiSquare(), [1.5], 2.0, outside=[[-0.5], [-1.0]], edges=[[0.0]], off=[0.0, -1.0]
    ),
    "normal": Row(
        Normal(),
        [0.5, -0.25],
        0.5,
        outside=[[0.0, 0.0], [1.0, 0.5]],
        unreachable=[[2.0, 4.0], [1.0, 0.5]],  # no variance, a negative one
    ),
    "exponential": Row(
        Exponential(),
        [-2.0],
        0.5,
        outside=[[1.0], [-INF]],
        unreachable=[[-1.0]],
        edges=[[0.0]],
        off=[-1.0],
    ),
    "negative binomial": Row(
        NegativeBinomial(2.5),
        [-1.0],
        2.0,
        outside=[[0.1], [-INF]],
        unreachable=[[-0.5]],
        edges=[[0.0]],
        faces=[[0.0]],
        off=[-1.0, 0.5],
    ),
    "logarithmic": Row(
        Logarithmic(),
        [-1.0],
        2.0,
        outside=[[0.5], [-INF]],
        unreachable=[[0.5]],
        edges=[[0.0]],
        faces=[[1.0]],
        off=[0.0, 1.5],
    ),
    "inverse Gaussian": Row(
        InverseGaussian(),
        [-0.5, -2.0],
        1.5,
        outside=[[1.0, 1.0], [1.0, -1.0], [-1.0, 0.0], [0.0, -1.0]],  # the first: θ₁θ₂ > 0
        unreachable=[[2.0, 0.4], [2.0, 0.5], [-1.0, 2.0]],  # E X · E 1/X ≤ 1
        off=[0.0, -1.0],
    ),
    "von Mises-Fisher": Row(
        VonMisesFisher(3),
        [0.5, -0.25, 1.0],
        [0.0, 0.6, 0.8],
        unreachable=[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]],
        off=[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
    ),
    "generalized inverse Gaussian": Row(
        GeneralizedInverseGaussian(),
        [0.5, -0.25, -1.0],
        1.5,
        outside=[[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, -1.0], [1.0, 1.0, 1.0]],
        dual=(),
        off=[0.0, -1.0],
    ),
    "Gaussian": Row(
        Gaussian(2),
        _PLANE,
        [0.5, 1.0],
        # Λ = (1 2; 2 1); Λ = (1 1; 1 1); Λ = −I, whose determinant is positive
        outside=[[0, 0, -0.5, -2, -0.5], [0, 0, -0.5, -1, -0.5], [0, 0, 0.5, 0, 0.5]],
        unreachable=[[1.0, 1.0, 1.0, 1.0, 1.0]],
    ),
    "Wishart": Row(
        Wishart(2),
        [2.0, -0.75, 0.5, -0.5],
        [[2.0, 0.5], [0.5, 1.0]],
        # ν = p − 2.5 and p − 1; B indefinite; B negative definite
        outside=[[-0.25, -1, 0, -1], [0.5, -1, 0, -1], [2, -1, 4, -1], [2, 1, 0, 1]],
        unreachable=[[1.0, 1.0, 0.0, 1.0], [-1.0, 1.0, 2.0, 1.0]],  # E log det X ≥ log det E X
        off=[[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]]],
    ),
    "Bernoulli": Row(
        Bernoulli(),
        [0.5],
        1.0,
        outside=[[-INF]],
        unreachable=[[1.2], [-0.1]],
        faces=[[0.0], [1.0]],
        off=[2.0, 0.5],
    ),
    "categorical": Row(
        Categorical(2),
        [0.5, -1.0],
        1.0,
        outside=[[INF, INF], [INF, -INF]],
        unreachable=[[0.6, 0.6], [-0.1, 0.3]],
        faces=[[0.5, 0.5], [0.0, 0.3]],
        off=[7.0, -1.0, 0.5],
    ),
    "Poisson": Row(
        Poisson(),
        [0.5],
        2.0,
        outside=[[-INF]],
        unreachable=[[-1.0], [INF]],
        faces=[[0.0]],
        off=[-1.0, 0.5],
    ),
    "log-linear": Row(
        LogLinear(np.array(_LEVELS)),
        [0.5, -0.25],
        1.0,
        outside=[[0.0, -INF]],
        unreachable=[[0.0, 0.0], [1.0, 1.0], [1.5, 2.5], [1.0, 5.0]],  # corners, a face, beyond
        off=[4.0, -1.0],
    ),
    "zero-truncated Poisson": Row(
        ZeroTruncatedPoisson(),
        [0.5],
        2.0,
        outside=[[-INF]],
        unreachable=[[0.9]],
        faces=[[1.0]],
        off=[0.0, 1.5],
    ),
}
SLOW = ("Dirichlet", "von Mises-Fisher", "generalized inverse Gaussian", "Wishart")  # to compile


def families_that(condition):
    """Every family of which that is so."""
    params = []
    for name, row in ROWS.items():
        marks = [pytest.mark.slow] if name in SLOW else []
        if condition(row):
            params.append(pytest.param(row, id=name, marks=marks))
    return pytest.mark.parametrize("row", params)


every_family = families_that(lambda row: True)


@every_family
def test_an_impossible_theta_is_nan_and_so_is_its_gradient(row, x64):
    for name in ("psi", "eta", "metric", "log p"):
        value, slope = row.at_bad(name, 0, len(row.bad))
        for theta, v, s in zip(row.bad, value, slope, strict=True):
            edge = theta in row.edges or INF in np.abs(theta)
            limit = name == "psi" and edge and v == INF
            assert limit or np.isnan(v).all(), f"{name} at {theta} is {v}"
            assert limit or np.isnan(s).any(), f"the gradient of {name} at {theta} is {s}"
            assert not (limit and np.isfinite(s).all())


@families_that(lambda row: row.dual)
def test_an_eta_that_no_law_has_is_nan(row, x64):
    count = len(row.unreachable)
    etas = [*row.unreachable, [NAN] * len(row.theta)]
    rows = [*range(count), count + len(row.faces)]
    for name in row.dual:
        value, slope = row.at_bad(name, 0, rows[-1] + 1)
        for eta, at in zip(etas, rows, strict=True):
            assert np.isnan(value[at]).all(), f"{name} at {eta} is {value[at]}"
            if name != "theta":
                assert np.isnan(slope[at]).any(), f"∇φ at {eta} is {slope[at]}"


@families_that(
    lambda row: "theta" in row.dual and row.unreachable,
)
def test_an_eta_that_no_law_has_has_no_jacobian(row, x64):
    """∂θ/∂η where there is no θ."""
    slope = row.at_bad("theta", 0, len(row.unreachable) + len(row.faces))[1]
    assert np.isnan(slope).any(-1).all(), slope


@families_that(lambda row: row.faces)
def test_on_a_face_phi_is_its_limit_and_nothing_else_is_a_number(row, x64):
    """The closure of the range belongs to φ, as Σ p log p is 0 at a vertex; θ and ∇φ are not there."""
    first = len(row.unreachable)
    theta, _ = row.at_bad("theta", first, len(row.faces))
    value, slope = row.at_bad("phi", first, len(row.faces))
    assert np.isfinite(value).all()
    assert np.isnan(theta).any(-1).all()
    assert np.isnan(slope).any(-1).all()


@every_family
def test_the_other_rows_of_a_batch_keep_every_bit(row, x64):
    mixed, alone, _ = row.tables
    for name in mixed:
        for found, wanted in zip(mixed[name], alone[name], strict=True):
            for at in (0, -1):
                np.testing.assert_array_equal(found[at], wanted[at], err_msg=name)
                assert np.isfinite(found[at]).all(), name


# --- points that look impossible and are not ----------------------------------------------------


def test_no_concentration_is_a_point_like_any_other(x64):
    """κ = 0: ψ = log |S²|, η = 0, G = I/p, and first derivatives that are no 0/0."""
    family, zero = VonMisesFisher(3), jnp.zeros(3)

    @jax.jit
    def look(point):
        return {
            "psi": family(point),
            "slope": jax.grad(family)(point),
            "eta": to_eta(family, point),
            "metric": metric(family, point),
            "jacobian": jax.jacfwd(lambda t: to_eta(family, t))(point),
            "theta": to_theta(family, point),
            "inverse": jax.jacfwd(lambda e: to_theta(family, e))(point),
            "score": jax.grad(lambda t: log_prob(family, t, jnp.array([0.0, 0.6, 0.8])))(point),
        }

    found = look(zero)
    np.testing.assert_allclose(found["psi"], math.log(4 * math.pi), rtol=1e-15)
    for name in ("slope", "eta", "theta"):
        np.testing.assert_array_equal(found[name], 0)
    for name in ("metric", "jacobian"):
        np.testing.assert_array_equal(found[name], np.eye(3) / 3)
    np.testing.assert_array_equal(found["inverse"], 3 * np.eye(3))
    np.testing.assert_array_equal(found["score"], [0.0, 0.6, 0.8])


def test_second_derivatives_without_concentration(x64):
    bend = jax.jit(jax.hessian(VonMisesFisher(3).__call__))(jnp.zeros(3))
    np.testing.assert_allclose(bend, np.eye(3) / 3, rtol=1e-9)


def test_outcomes_of_probability_zero_are_a_legal_limit(x64):
    """θ = −∞ throughout: all the mass on the reference, with gradient 0."""
    family, theta = Categorical(2), jnp.array([-INF, -INF])
    assert family(theta) == 0
    np.testing.assert_array_equal(jax.grad(family)(theta), 0)
    np.testing.assert_array_equal(to_eta(family, theta), 0)


# --- events and data ----------------------------------------------------------------------------


@families_that(lambda row: row.off)
def test_what_has_no_probability_is_minus_infinity(row, x64):
    """log p = −∞, with a NaN gradient; 7 is not taken for the last of three outcomes."""
    value, slope = (v[1 : 1 + len(row.off)] for v in row.tables[2]["log p"])
    assert (value == -INF).all()
    assert np.isnan(slope).any(-1).all()


@families_that(
    lambda row: True,
)
def test_an_event_that_is_nan_has_no_density(row, x64):
    value, slope = (v[1 + len(row.off)] for v in row.tables[2]["log p"])
    assert np.isnan(value)
    assert np.isnan(slope).any()


def test_one_bad_event_spoils_the_fit_of_its_own_batch(x64):
    @jax.jit
    @jax.vmap
    def look(x):
        return jax.value_and_grad(lambda x: fit(Gamma(), x).sum())(x), statistics(Gamma(), x).mean

    (value, slope), mean = look(jnp.array([[1.0, 2.0, x] for x in (4.0, NAN, INF, -1.0, 0.0)]))
    assert np.isfinite(value[0])
    assert np.isfinite(slope[0]).all()
    assert np.isnan(value[1:]).all()
    assert np.isnan(mean[1:]).all()
    assert np.isnan(slope[1:]).any(-1).all()


@pytest.mark.parametrize("weight", [NAN, -1.0, INF])
def test_one_bad_weight_spoils_the_fit(weight, x64):
    assert np.isnan(fit(Gamma(), jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, weight, 1.0]))).all()


def test_bad_data_and_priors_spoil_the_evidence(x64):
    @jax.jit
    @jax.vmap
    def look(prior, x):
        data = statistics(Poisson(), x)
        evidence = jax.value_and_grad(lambda p: log_evidence(Poisson(), p, data))(prior)
        return *evidence, posterior(Poisson(), prior, data), log_likelihood(Poisson(), x[:1], data)

    prior, x = [1.0, -1.0], [1.0, 3.0]
    rows = [(prior, x), ([-1.0, 1.0], x), (prior, [1.0, NAN]), (prior, [1.0, -1.0])]
    value, slope, after, likely = look(*(jnp.array(v) for v in zip(*rows, strict=True)))
    assert np.isfinite(value[0])
    assert np.isnan(value[1:]).all()
    assert np.isnan(slope[1:]).any(-1).all()
    assert np.isnan(after[2:]).any(-1).all()
    assert np.isnan(likely[2:]).all()


@pytest.mark.parametrize("family", [Gamma(), Normal(), Poisson(), Categorical(2)])
def test_no_law_fits_data_at_an_edge(family, x64):
    same = jnp.zeros(3) if family.dim == 1 or family.event_shape else jnp.ones(3)
    assert np.isnan(fit(family, same)).any()
    assert np.isnan(fit(family, jnp.zeros(0))).any()


def test_divergences_have_no_value_for_impossible_orders(x64):
    theta, other = jnp.array([0.5, 0.5]), jnp.array([1.0, 2.0])
    for alpha in (NAN, INF, -INF):
        look = jax.value_and_grad(lambda t, a=alpha: alpha_divergence(Categorical(2), t, other, a))
        value, slope = look(theta)
        assert np.isnan(value)
        assert np.isnan(slope).all()


IMPOSSIBLE = {
    "gamma": lambda: Gamma().from_usual(-1.0, 1.0),
    "gamma, NaN": lambda: Gamma().from_usual(1.0, NAN),
    "normal": lambda: Normal().from_usual(0.0, -1.0),
    "exponential": lambda: Exponential().from_usual(INF),
    "Bernoulli": lambda: Bernoulli().from_usual(1.0),
    "Poisson": lambda: Poisson().from_usual(0.0),
    "logarithmic": lambda: Logarithmic().from_usual(1.0),
    "inverse Gaussian": lambda: InverseGaussian().from_usual(-1.0, 1.0),
    "categorical": lambda: Categorical(2).from_usual(jnp.array([0.5, 0.6, 0.1])),
    "generalized inverse Gaussian": lambda: GeneralizedInverseGaussian().from_usual(-1, 2.0, 0.0),
    "indefinite covariance": lambda: Gaussian(2).from_usual(
        jnp.zeros(2), jnp.array([[1.0, 2.0], [2.0, 1.0]])
    ),
    "negative covariance": lambda: Gaussian(2).from_usual(jnp.zeros(2), -jnp.eye(2)),
    "Wishart, degrees": lambda: Wishart(2).from_usual(0.5, jnp.eye(2)),
    "Wishart, scale": lambda: Wishart(2).from_usual(4.0, jnp.array([[1.0, 2.0], [2.0, 1.0]])),
    "concentration": lambda: VonMisesFisher(3).from_usual(jnp.array([1.0, 0.0, 0.0]), -1.0),
    "direction": lambda: VonMisesFisher(3).from_usual(jnp.array([1.0, 1.0, 0.0]), 1.0),
}


@pytest.mark.parametrize("theta", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_usual_parameters_are_nan(theta, x64):
    assert np.isnan(theta()).all()


def test_no_law_has_no_draws(x64):
    for theta in ([-1.0, -1.0], [NAN, -1.0], [1.0, 0.0]):
        assert np.isnan(sample(Gamma(), jax.random.key(0), jnp.array(theta), 3)).all()


# --- what is seen before tracing ----------------------------------------------------------------

POINT, KEY = jnp.ones(2) * jnp.array([1.0, -1.0]), jax.random.key(0)
ERRORS = {
    "complex θ": lambda: to_eta(Gamma(), jnp.array([1 + 1j, -1])),
    "complex η": lambda: conjugate(Gamma(), jnp.array([1j, 2])),
    "complex event": lambda: log_prob(Gamma(), POINT, 1j),
    "complex data": lambda: fit(Gamma(), jnp.array([1.0, 1j])),
    "θ of another length": lambda: to_eta(Gamma(), jnp.ones(3)),
    "no θ": lambda: to_eta(Dirichlet(3), jnp.zeros(0)),
    "a batch of θ": lambda: metric(Gamma(), jnp.ones((2, 2))),
    "inside jit": lambda: jax.jit(lambda t: to_eta(Gamma(), t))(jnp.ones(3)),
    "two lengths": lambda: bregman(lambda t: t @ t, jnp.ones(2), jnp.ones(3)),
    "laws of two families": lambda: kl(Gamma(), POINT, jnp.ones(3)),
    "a batch of events": lambda: log_prob(Gamma(), POINT, jnp.ones(2)),
    "data of another shape": lambda: statistics(Gaussian(2), jnp.ones((3, 3))),
    "weights of another length": lambda: statistics(Gamma(), jnp.ones(2), jnp.ones(3)),
    "no conjugate prior": lambda: posterior(Gamma(), POINT, statistics(Gamma(), jnp.ones(2))),
    "one probability": lambda: Dirichlet(1),
    "a sphere in a line": lambda: VonMisesFisher(1),
    "no success": lambda: NegativeBinomial(0.0),
    "no dimension": lambda: Gaussian(0),
    "no rows": lambda: Wishart(0),
    "a column of zeros": lambda: LogLinear(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])),
    "mean of another length": lambda: Gaussian(2).from_usual(jnp.ones(3), jnp.eye(2)),
    "scale of another shape": lambda: Wishart(2).from_usual(4.0, jnp.eye(3)),
    "a number for a key": lambda: sample(Gamma(), 0, POINT),
    "an old key": lambda: sample(Gamma(), jax.random.PRNGKey(0), POINT),
    "two keys": lambda: sample(Gamma(), jax.random.split(KEY), POINT),
}


@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_what_the_caller_can_mend_is_an_error(call):
    with pytest.raises(ValueError, match=r"Wanted|real|no conjugate prior|Leave out"):
        call()


# --- what was once not flagged ------------------------------------------------------------------


@pytest.mark.parametrize("successes", [0.0, -1.0, INF])
def test_a_traced_number_of_successes_is_checked(successes, x64):
    psi = jax.jit(lambda r: NegativeBinomial(r)(jnp.array([-1.0])))
    assert np.isnan(psi(successes))


def test_complex_data_have_no_statistics():
    with pytest.raises(ValueError, match="real"):
        statistics(Gamma(), jnp.array([1.0, 1j]))


def test_an_impossible_prior_has_no_posterior(x64):
    prior = jnp.array([-1.0, -1.0])
    assert np.isnan(posterior(Poisson(), prior, statistics(Poisson(), jnp.array([3.0])))).any()


@pytest.mark.parametrize("family", [VonMisesFisher(3), ChiSquare()])
def test_no_data_fit_no_law(family, x64):
    assert np.isnan(fit(family, jnp.zeros((0, *family.event_shape)))).any()


@pytest.mark.parametrize(
    ("family", "theta"),
    [(Gamma(), [-0.5, -1.0]), (Dirichlet(2), [-0.5, 2.0]), (Exponential(), [1.0])],
)
def test_the_usual_parameters_of_no_law_are_nan(family, theta, x64):
    usual = family.to_usual(jnp.array(theta))
    assert all(np.isnan(v).any() for v in usual.values())


def test_an_infinite_mean_is_no_usual_parameter(x64):
    assert np.isnan(NormalGamma().from_usual(INF, 1.0, 1.0, 1.0)).any()


@pytest.mark.parametrize(
    ("family", "theta"),
    [(Poisson(), [0.5]), (Binomial(10), [0.5])],
)
def test_the_entropy_of_counts_has_a_gradient(family, theta, x64):
    slope = jax.jit(jax.grad(lambda t: entropy(family, t)))
    assert np.isfinite(slope(jnp.array(theta))).all()
