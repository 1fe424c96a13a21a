"""Every law for every potential of the table, and laws that break when they should."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualflat import verify
from dualflat.geometry import laws
from dualflat.geometry._tree import register
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.laws import BACK, LAWS, STRAIGHT
from tests.geometry.potentials_table import TABLE
from tests.geometry.truth import user_made

PARTS = {
    part: [law for law in LAWS if law.part == part]
    for part in dict.fromkeys(law.part for law in LAWS)
}
LONG = {part: PARTS[part] for part in (BACK, STRAIGHT)}  # differential equations and searches
SHORT = {part: PARTS[part] for part in PARTS if part not in LONG}
ALL_SHORT = [law for part in SHORT.values() for law in part]
COUNT = 4


def row(name):
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


def around(start, spread):
    return lambda rng, count: start + rng.uniform(-spread, spread, (count, len(start)))


DRAWS = {name: (entry.psi, entry.draw) for name, entry in TABLE.items()}
DRAWS |= {
    "categorical": (Categorical(3), around([0.5, -1.0, 1.5], 1.0)),
    "gaussian": (Gaussian(2), around([0.5, -1.0, -0.75, 0.25, -0.5], 0.2)),
    "user-made": (user_made, around([0.5, -0.25], 0.5)),  # everything by search and autodiff
}
# One potential of each kind; the others take minutes of compiling, and some many.
QUICK = ("burg", "log-sum-exp", "log barrier", "user-made")
# What the long laws run through: closed forms, structure, a search, a domain with an edge.
LONG_FOR = ("log-sum-exp", "log barrier", "user-made")


@functools.cache
def points_of(name, dtype=np.float64):
    """Points, and two more a quarter of the way to others: a convex domain holds those too."""
    psi, draw = DRAWS[name]
    first, *others = np.split(draw(np.random.default_rng(20261), 3 * COUNT), 3)
    triples = first, *(0.75 * first + 0.25 * x for x in others)
    points = verify.with_metric(psi, tuple(jnp.asarray(x, dtype) for x in triples))
    assert points.convex
    return points


def findings(psi, points, wanted):
    """What `dualflat verify` would say of each law."""
    subject = verify.Subject("psi", psi, points.triples[0][0])
    return [f for _, look in verify.examine(subject, points, wanted) for f in look()]


def findings_of(name, wanted, dtype=np.float64):
    return findings(DRAWS[name][0], points_of(name, dtype), wanted)


def assert_all_hold(found):
    bad = {f.law.name: (f.residual, f.tolerance) for f in found if not f.holds}
    assert not bad, bad


@pytest.mark.parametrize("part", SHORT)
@pytest.mark.parametrize("name", [row(name) for name in DRAWS])
def test_every_short_law_holds(name, part, x64):
    wanted = SHORT[part]
    found = findings_of(name, wanted)
    assert len(found) == len(wanted)
    assert_all_hold(found)


@pytest.mark.slow
@pytest.mark.parametrize("part", LONG)
@pytest.mark.parametrize("name", LONG_FOR)
def test_every_long_law_holds(name, part, x64):
    found = findings_of(name, LONG[part])
    assert len(found) == len(LONG[part])
    assert_all_hold(found)


@pytest.mark.parametrize(
    "name",
    ["burg", *(pytest.param(n, marks=pytest.mark.slow) for n in ("log-sum-exp", "user-made"))],
)
def test_every_short_law_holds_in_float32(name):
    assert_all_hold(findings_of(name, ALL_SHORT, np.float32))


@register
@dataclasses.dataclass(frozen=True)
class Wrong(Categorical):
    """θ(η) is wrong by 1e-6 of it."""

    def to_theta(self, eta):
        return super().to_theta(eta) * (1 + 1e-6)


@register
@dataclasses.dataclass(frozen=True)
class Rough(Categorical):
    """∇²ψ is said to be larger than it is, by 1e-9 of it."""

    def hessian(self, theta):
        found = super().hessian(theta)
        return dataclasses.replace(found, entries=found.entries * (1 + 1e-9))


def test_a_wrong_dual_map_breaks_the_laws_that_use_it(x64):
    found = findings(Wrong(3), points_of("categorical"), ALL_SHORT)
    broken = {f.law.name for f in found if not f.holds}
    assert broken >= {
        "involution",
        "biorthogonality",
        "dual_gradient",
        "inverse_metric_is_jacobian",
    }
    assert not broken & {"three_points", "metric_is_hessian", "dual_coordinates_are_gradient"}


def test_a_wrong_metric_breaks_its_law(x64):
    wanted = [law for law in ALL_SHORT if law.name in ("metric_is_hessian", "three_points")]
    found = findings(Rough(3), points_of("categorical"), wanted)
    assert [f.law.name for f in found if not f.holds] == ["metric_is_hessian"]


def test_curvature_that_is_there_is_seen(x64):
    """Round a triangle ∇^(1/3) does not come home: the law's ∇* does, so that it can fail."""
    psi, p = Categorical(2), jnp.array([0.5, -1.0])
    q, r = p + jnp.array([0.4, 0.1]), p + jnp.array([-0.1, 0.5])
    from dualflat.geometry import transport
    from dualflat.geometry.connection import alpha_connection

    @jax.jit
    def both(p, q, r):
        curved = alpha_connection(psi, laws.ALPHA)
        turned = transport.holonomy(curved, laws._triangle(p, q, r), panels=3 * laws.PANELS)
        return jnp.abs(turned - jnp.eye(2)).max(), jnp.abs(
            laws.holonomy_of_flat(psi, p, q, r)
        ).max()

    curved, flat = both(p, q, r)
    assert curved > 1e-4
    assert flat < 1e-13


def test_every_number_of_the_lecture_is_there():
    numbers = {number for law in LAWS for number in law.numbers}
    assert numbers >= {str(k) for k in range(1, 14)}
    assert numbers >= {"theorem 1", "lemma 1", "lemma 2", "lemma 3", "dual"}


def test_every_law_says_what_it_is():
    assert len({law.name for law in LAWS}) == len(LAWS)
    for law in LAWS:
        assert law.words.endswith((".", "n).", ",")), law.name
        assert law.points in (1, 2, 3)
