"""Every family of the table against `dualflat.testing`, and its densities against the textbooks'."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat import testing
from dualflat.geometry._tree import register
from dualflat.geometry.families.base import Family, entropy, kl, log_prob, sample
from dualflat.geometry.families.gamma import Gamma
from dualflat.geometry.families.inference import fit, log_evidence, statistics
from dualflat.geometry.families.normal import Normal
from dualflat.geometry.families.poisson import Poisson
from tests.geometry.families_table import TABLE

QUICK = ("Poisson", "normal", "inverse Gaussian")
ROWS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TABLE]


@functools.cache
def case_of(name):
    return TABLE[name].case()


@pytest.mark.parametrize("name", ROWS)
def test_every_check_passes(name, x64):
    case = case_of(name)
    assert isinstance(case.family, Family)
    failed = []
    for check in testing.CHECKS:
        try:
            check(case)
        except AssertionError as error:
            failed.append(f"{check.__name__}: {error}")
    assert not failed, "\n\n".join(failed)


@pytest.mark.parametrize("name", ROWS)
def test_densities_are_those_of_the_textbooks(name, x64):
    """log p at drawn events against 50 digits, to what rounding θ and x may do."""
    entry, case = TABLE[name], case_of(name)
    look = jax.jit(jax.vmap(lambda t, x: log_prob(entry.family, t, x)))
    found = look(case.points, case.drawn[:, 1])
    for theta, x, value in zip(case.points, case.drawn[:, 1], found, strict=True):
        flat = np.ravel(x)
        if np.iscomplexobj(flat):
            flat = flat.view(np.float64)
        events = [mp.mpf(float(v)) for v in flat]
        with mp.workdps(50):
            truth = entry.density(events, [mp.mpf(float(v)) for v in theta])
        assert abs(mp.mpf(float(value)) - truth) <= 200 * case.eps * (1 + abs(truth)), (x, truth)


# --- the checks can fail -----------------------------------------------------------------------


@register
@dataclasses.dataclass(frozen=True)
class _Tampered(Poisson):
    """A Poisson family of which one thing is wrong."""

    wrong: str = dataclasses.field(default="", metadata={"static": True})

    def _value(self, t):
        return super()._value(t) * (1 + 1e-9 * (self.wrong == "ψ"))

    def _slope(self, t):
        return super()._slope(t) * (1 + 1e-9 * (self.wrong == "η"))

    def _inverse(self, s):
        return super()._inverse(s) + 1e-9 * (self.wrong == "θ(η)")

    def log_saturated(self, x):
        return super().log_saturated(x) + 1e-9 * (self.wrong == "density")

    def draw(self, key, theta, shape):
        return super().draw(key, theta, shape) + (self.wrong == "draws")

    def log_base(self, x):
        value = super().log_base(x)
        return jnp.where(x < 0, 0.0, value) if self.wrong == "support" else value

    def prior_step(self, weight, total):
        return super().prior_step(weight, total) * (1 + 1e-6 * (self.wrong == "prior"))


BROKEN = {
    "ψ": testing.legendre_transform,
    "η": testing.slopes,
    "θ(η)": testing.coordinates,
    "density": testing.densities,
    "draws": testing.sampling,
    "support": testing.densities,
    "prior": testing.bayes,
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", BROKEN)
def test_each_check_finds_what_it_looks_for(wrong, x64):
    case = dataclasses.replace(TABLE["Poisson"].case(), family=_Tampered(wrong))
    with pytest.raises(AssertionError):
        BROKEN[wrong](case)


def test_a_point_that_is_not_flagged_is_found(x64):
    case = dataclasses.replace(TABLE["Poisson"].case(), outside=[[1.0]])
    with pytest.raises(AssertionError, match="is a number"):
        testing.bad_points(case)


# --- what is said of all families ----------------------------------------------------------------


def test_a_count_of_1e10_keeps_the_digits_of_its_probability(x64):
    theta = jnp.log(jnp.array([1e10]))
    with mp.workdps(60):
        t = mp.mpf(float(theta[0]))
        truth = mp.mpf(10) ** 10 * t - mp.exp(t) - mp.loggamma(mp.mpf(10) ** 10 + 1)
    np.testing.assert_allclose(log_prob(Poisson(), theta, 1e10), float(truth), rtol=1e-14)


@pytest.mark.parametrize("rate", [1e-3, 1.0, 70.0, 80.0, 1e4, 1e8])
def test_the_entropy_of_counts(rate, x64):
    """Against the sum, and beyond where nobody sums against its expansion (Knessl 1998)."""
    found = float(jax.jit(lambda t: entropy(Poisson(), t))(jnp.log(jnp.array([rate]))))
    if rate < 1e3:
        with mp.workdps(40):
            r = mp.mpf(float(np.exp(np.log(rate))))
            p = [mp.exp(k * mp.log(r) - r - mp.loggamma(k + 1)) for k in range(400)]
            truth = -mp.fsum(v * mp.log(v) for v in p)
    else:
        truth = (
            mp.log(2 * mp.pi * mp.e * rate) / 2 - 1 / mp.mpf(12 * rate) - 1 / mp.mpf(24 * rate**2)
        )
    np.testing.assert_allclose(found, float(truth), rtol=1e-11)


def test_a_sample_needs_one_key_of_the_new_kind():
    for key in (jnp.zeros(2, jnp.uint32), jax.random.split(jax.random.key(0)), 3):
        with pytest.raises(ValueError, match="Wanted one key"):
            sample(Poisson(), key, jnp.zeros(1))


def test_wrong_shapes_say_what_was_wanted():
    with pytest.raises(ValueError, match=r"x has shape \(3,\)"):
        log_prob(Poisson(), jnp.zeros(1), jnp.zeros(3))
    with pytest.raises(ValueError, match="a batch of events"):
        statistics(Poisson(), jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match="weights have shape"):
        statistics(Poisson(), jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(ValueError, match="knows no conjugate prior"):
        log_evidence(Gamma(), jnp.ones(1), statistics(Gamma(), jnp.ones(3)))


def test_data_that_no_law_explains_have_no_fit():
    assert jnp.isnan(fit(Poisson(), jnp.array([0.0, 0.0]))).all()  # the rate would be 0
    assert jnp.isnan(fit(Gamma(), jnp.array([2.0, 2.0, 2.0]))).any()  # no spread
    assert jnp.isnan(fit(Poisson(), jnp.array([1.0, -2.0]))).all()  # off the support
    assert jnp.isnan(fit(Normal(), jnp.array([1.0, jnp.nan]))).any()


def test_kl_is_read_from_the_first_to_the_second(x64):
    two, one = (jnp.log(jnp.array([v])) for v in (2.0, 1.0))
    np.testing.assert_allclose(kl(Poisson(), two, one), 2 * np.log(2) - 1, rtol=1e-15)
