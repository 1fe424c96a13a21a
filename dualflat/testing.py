"""Hold a family of laws, yours too, against everything that must be true of one.

    from dualflat import testing

    @pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
    def test_my_family(check):
        check(testing.Case(MyFamily(), thetas=[[0.5, -1.0], [2.0, -0.1]], outside=[[0.0, 1.0]]))

A check returns nothing, or raises an AssertionError that says what was found. Bounds are multiples of
the rounding unit of the dtype, of what rounding the coordinates alone may do, or of the standard error
of a sample; nothing is loosened for a family but by the `slack` of its case.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualflat.geometry.divergence import bregman, fenchel_young
from dualflat.geometry.families import base, inference
from dualflat.geometry.legendre import conjugate, to_eta, to_theta
from dualflat.geometry.metric import metric
from dualflat.geometry.potential import in_domain, knowledge


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A family, and points that the checks look at.

    Attributes:
      family: the family.
      thetas: two or more points inside the domain, shape (k, n).
      outside: points that are in no domain; NaN and infinities are added.
      unreachable: η that no law has.
      off_support: events that have no probability, each of the family's event shape.
      samples: how many events the statistical checks draw.
      slack: what the bounds on rounding are multiplied by, for a family that is known to be harder.
    """

    family: Any
    thetas: Any
    outside: Sequence[Any] = ()
    unreachable: Sequence[Any] = ()
    off_support: Sequence[Any] = ()
    samples: int = 20_000
    slack: float = 1.0

    @functools.cached_property
    def points(self) -> jax.Array:
        """The points, in the default float."""
        return jnp.asarray(np.asarray(self.thetas, np.float64))

    @functools.cached_property
    def others(self) -> jax.Array:
        """For every point another one: a quarter of the way to the next, which is inside."""
        return 0.75 * self.points + 0.25 * jnp.roll(self.points, 1, 0)

    @functools.cached_property
    def drawn(self) -> jax.Array:
        """Events of every law, shape (k, samples, *event_shape)."""
        keys = jax.random.split(jax.random.key(20261), len(self.points))
        draw = functools.partial(base.sample, self.family, shape=self.samples)
        return jax.jit(jax.vmap(draw))(keys, self.points)

    @functools.cached_property
    def bad(self) -> jax.Array:
        """Points that are in no domain, shape (b, n)."""
        first = np.asarray(self.points[0])
        spoilt = [np.where(np.arange(len(first)) == 0, v, first) for v in (np.nan, np.inf)]
        return jnp.asarray(np.array([*self.outside, *spoilt]), self.points.dtype)

    @functools.cached_property
    def _tables(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What is computed at the good and the bad points, and at good ones alone: one program."""
        family, count = self.family, len(self.bad)

        @jax.jit
        @jax.vmap
        def look(theta, other, x):
            eta = to_eta(family, theta)
            back, g = to_theta(family, eta), metric(family, theta)
            psi, slope = jax.value_and_grad(family)(theta)
            phi, phi_slope = jax.value_and_grad(lambda e: conjugate(family, e))(eta)
            logs, score = jax.value_and_grad(lambda t: base.log_prob(family, t, x))(theta)
            line = jnp.where(jnp.arange(len(theta)) % 2 == 0, 1.0, -0.5).astype(theta.dtype)

            def divergence(t, b):  # with its gradient in t, and the change of that along a line
                return jax.jvp(jax.value_and_grad(lambda t: bregman(family, t, b)), (t,), (line,))

            pairs = jnp.stack([theta, other, other, theta]), jnp.stack([theta, theta, back, other])
            (kl, kl_slope), (_, kl_bend) = jax.vmap(divergence)(*pairs)
            return {
                "psi": psi,
                "eta": eta,
                "slope": slope,
                "metric": g,
                "jacobian": jax.jacfwd(lambda t: to_eta(family, t))(theta),
                "back": back,
                "again": to_eta(family, back),
                "phi": phi,
                "phi slope": phi_slope,
                "same": kl[0],
                "kl": kl[1],
                "kl slope": kl_slope[3],
                "near kl": kl[2],
                "gap": fenchel_young(family, other, eta),
                "kl bend": kl_bend[0],
                "bend": g @ line,
                "log prob": logs,
                "score": score,
                "statistic": family.statistic(x),
                "plain": theta @ family.statistic(x) - psi + family.log_base(x),
                "usual": family.from_usual(**family.to_usual(theta)),
                "entropy": base.entropy(family, theta),
            }

        def filled(points, more):
            again = points[np.arange(count) % len(points)]
            return jnp.concatenate([points, again if more is None else more])

        others, events = filled(self.others, None), filled(self.drawn[:, 0], None)
        mixed = look(filled(self.points, self.bad), others, events)
        alone = look(filled(self.points, None), others, events)

        def doubles(table):
            return {name: np.asarray(v, np.float64) for name, v in table.items()}

        return doubles(mixed), doubles(alone)

    @property
    def found(self) -> dict[str, np.ndarray]:
        """What is computed at every point."""
        return {name: v[: len(self.points)] for name, v in self._tables[0].items()}

    @property
    def eps(self) -> float:
        """The rounding unit, times the slack."""
        return self.slack * float(jnp.finfo(self.points.dtype).eps)

    def moved(self, name: str) -> np.ndarray:
        """What rounding θ does to η, shape (k, n): Σⱼ |Gᵢⱼθⱼ|, and η itself."""
        g = np.abs(self.found["metric"])
        return np.einsum("kij,kj->ki", g, np.abs(np.asarray(self.points))) + np.abs(
            self.found[name]
        )


def _near(found: Any, wanted: Any, bound: Any, what: str) -> None:
    found, wanted, bound = (np.asarray(v, np.float64) for v in (found, wanted, bound))
    wrong = np.abs(found - wanted)
    ok = (wrong <= bound) | ((found == wanted) & ~np.isnan(found))
    assert ok.all(), f"{what}: found\n{found}\nwanted\n{wanted}\noff by up to {np.max(wrong)}"


def slopes(case: Case) -> None:
    """η is the gradient of ψ, and the metric its Jacobian, symmetric and positive definite."""
    f = case.found
    size = case.moved("eta")
    _near(f["slope"], f["eta"], 1e3 * case.eps * size, "∇ψ by autodiff and η")
    scale = np.sqrt(np.einsum("kii->ki", f["metric"]))
    scale = scale[:, :, None] * scale[:, None, :]
    _near(f["jacobian"], f["metric"], 1e4 * case.eps * scale, "∂η/∂θ and the metric")
    assert (f["metric"] == np.swapaxes(f["metric"], 1, 2)).all(), "the metric is not symmetric"
    lowest = np.linalg.eigvalsh(f["metric"] / scale)[:, 0]
    assert (lowest > 0).all(), f"the metric is not positive definite: {lowest}"


def coordinates(case: Case) -> None:
    """θ(η(θ)) has the same η, and the usual parameters are the same law."""
    f = case.found
    _near(f["again"], f["eta"], 16 * case.eps * case.moved("eta"), "η after θ(η)")
    stretch = np.linalg.inv(f["metric"]) @ f["eta"][..., None]
    size = np.abs(np.asarray(case.points)) + np.abs(stretch[..., 0])
    inverse = np.abs(np.linalg.inv(f["metric"]))
    rounding = np.einsum("kij,kj->ki", inverse, np.abs(f["eta"])) + size
    _near(f["back"], case.points, 64 * case.eps * rounding, "θ(η(θ))")
    _near(f["usual"], case.points, 256 * case.eps * _whole(size), "θ by the usual parameters")


def _whole(size: np.ndarray) -> np.ndarray:
    return np.broadcast_to(size.max(-1, keepdims=True), size.shape)


def legendre_transform(case: Case) -> None:
    """φ(η) = ⟨θ, η⟩ − ψ(θ), with gradient θ."""
    f = case.found
    inner = np.einsum("ki,ki->k", np.asarray(case.points), f["eta"])
    size = np.abs(np.asarray(case.points) * f["eta"]).sum(-1) + np.abs(f["psi"])
    _near(f["phi"], inner - f["psi"], 64 * case.eps * size, "φ(η)")
    _near(f["phi slope"], f["back"], 0.0, "∇φ and θ(η)")


def divergences(case: Case) -> None:
    """KL is not negative, 0 at equality with Hessian G, and the gap of the dual coordinates."""
    f = case.found
    assert (f["same"] == 0).all(), f"KL of a law from itself is {f['same']}"
    assert (f["kl"] > 0).all(), f"KL of two laws is {f['kl']}"
    size = f["kl"] + case.eps
    loose = 1e-3 if case.eps > 1e-10 else 1e-9
    _near(f["gap"], f["kl"], loose * size, "the gap and KL")
    _near(f["near kl"], f["kl"], loose * size, "KL from θ(η)")
    scale = np.sqrt(np.einsum("kii->ki", f["metric"]))
    bound = 1e4 * case.eps * scale * scale.sum(-1, keepdims=True)
    _near(f["kl bend"], f["bend"], bound, "the Hessian of KL at equality and the metric")


def densities(case: Case) -> None:
    """log p(x; θ) is ⟨θ, T⟩ − ψ + log h, its gradient T − η; −∞ where x has no probability."""
    f = case.found
    size = np.abs(np.asarray(case.points) * f["statistic"]).sum(-1) + np.abs(f["psi"])
    size = size + np.abs(f["log prob"]) + 1
    _near(f["log prob"], f["plain"], 64 * case.eps * size, "log p and ⟨θ, T⟩ − ψ + log h")
    _near(
        f["score"],
        f["statistic"] - f["eta"],
        8 * case.eps * (case.moved("eta") + np.abs(f["statistic"])),
        "∂ log p/∂θ and T − η",
    )
    for x in case.off_support:
        value = base.log_prob(case.family, case.points[0], jnp.asarray(x, case.drawn.dtype))
        assert value == -jnp.inf, f"log p of {x}, which has no probability, is {value}"


def sampling(case: Case) -> None:
    """Draws lie in the support; T has mean η and covariance G, and −log p the entropy."""
    f = case.found

    def moments(theta, xs):
        t = jax.vmap(case.family.statistic)(xs)
        logs = jax.vmap(lambda x: base.log_prob(case.family, theta, x))(xs)
        away = t - to_eta(case.family, theta)
        bases = jax.vmap(case.family.log_base)(xs)
        return t.mean(0), away.T @ away / len(xs), away, logs, jnp.isfinite(bases).all()

    mean, square, away, logs, inside = jax.jit(jax.vmap(moments))(case.points, case.drawn)
    assert np.all(inside), "draws outside the support"
    count = case.samples
    error = np.sqrt(np.einsum("kii->ki", f["metric"]) / count)
    _near(mean, f["eta"], 5 * error + 64 * case.eps * case.moved("eta"), "the mean of T")
    fourth = np.sqrt(
        np.einsum("kci,kcj->kij", np.asarray(away) ** 2, np.asarray(away) ** 2) / count**2
    )
    _near(square, f["metric"], 6 * fourth, "the covariance of T and the metric")
    logs = np.asarray(logs, np.float64)
    spread = logs.std(-1) / np.sqrt(count)
    _near(-logs.mean(-1), f["entropy"], 5 * spread + 1e-4, "the mean of −log p and the entropy")


def learning(case: Case) -> None:
    """The law of largest likelihood has the mean of the data; shards and masks change nothing."""
    family, xs = case.family, case.drawn[0]
    half = len(xs) // 2
    of = jax.jit(lambda events, weights: inference.statistics(family, events, weights))
    ones = jnp.ones(len(xs), case.points.dtype)
    whole = of(xs, ones)
    parts = of(xs[:half], ones[:half]) + of(xs[half : 2 * half], ones[half : 2 * half])
    size = 1e3 * case.eps * (np.abs(np.asarray(whole.mean)) + 1)
    if 2 * half == len(xs):
        _near(parts.mean, whole.mean, size, "the mean of two shards together")
    spoilt = of(xs.at[-1].set(jnp.nan), ones.at[-1].set(0.0))
    masked = of(xs, ones.at[-1].set(0.0))
    _near(spoilt.mean, masked.mean, size, "the mean with a masked event")
    assert np.isnan(of(xs.at[-1].set(jnp.nan), ones).mean).all(), "NaN among the data is not seen"
    theta = jax.jit(lambda data: inference.fit(family, data))(whole)
    assert bool(in_domain(family, theta)), f"no fit: {theta} from the mean {whole.mean}"
    spread = case.moved("eta")[0] + np.abs(np.asarray(whole.mean))
    _near(to_eta(family, theta), whole.mean, 64 * case.eps * spread, "η of the fitted law")
    best = inference.log_likelihood(family, theta, whole)
    truth = inference.log_likelihood(family, case.points[0], whole)
    assert best >= truth - 1e3 * case.eps * abs(truth), f"the fit has {best}, the truth {truth}"


def bad_points(case: Case) -> None:
    """Impossible θ and η are NaN, in gradients too, and leave the rest of a batch as it is."""
    family, count = case.family, len(case.points)
    mixed, alone = case._tables
    for name in ("eta", "metric", "log prob", "kl", "kl slope", "entropy"):
        bad = mixed[name][count:].reshape(len(case.bad), -1)
        flagged = np.isnan(bad).any(-1)
        assert flagged.all(), f"{name} at {np.asarray(case.bad)[~flagged]} is a number: {bad}"
    for name in mixed:
        good, pure = mixed[name][:count], alone[name][:count]
        same = (good == pure) | (np.isnan(good) & np.isnan(pure))
        assert same.all(), f"{name}: one bad row of a batch changed another"
    psi = mixed["psi"][count:]
    assert not np.isfinite(psi).any(), f"ψ outside its domain is {psi}"
    etas = [np.asarray(case.found["eta"][0]) * np.nan, *case.unreachable]
    missed = jax.jit(jax.vmap(lambda eta: to_theta(family, eta)))(
        jnp.asarray(np.array(etas), case.points.dtype)
    )
    flagged = np.isnan(np.asarray(missed)).any(-1)
    assert flagged.all(), f"θ(η) of {np.asarray(etas)[~flagged]}, which no law has: {missed}"


def bayes(case: Case) -> None:
    """With a conjugate prior: S speaks the likelihood, and data in any order give one posterior."""
    family = case.family
    if knowledge(family, "prior") is None:
        return
    prior = family.prior()
    start = prior.starting_point(case.points.dtype)
    xs = case.drawn[0, :3]
    two, one = inference.statistics(family, xs[:2]), inference.statistics(family, xs[2:])
    after = inference.posterior(family, start, two)
    together = inference.log_evidence(family, start, two + one)
    chain = inference.log_evidence(family, start, two) + inference.log_predictive(
        family, after, xs[2]
    )
    size = abs(float(together)) + abs(float((two + one).log_base)) + 1
    _near(chain, together, 1e4 * case.eps * size, "the evidence, and the product of predictions")
    both = inference.posterior(family, after, one)
    whole = inference.posterior(family, start, two + one)
    _near(
        both, whole, 64 * case.eps * (np.abs(np.asarray(whole)) + 1), "the posterior in two steps"
    )
    parameters = base.sample(prior, jax.random.key(7), start, 50)
    thetas = jax.vmap(family.law_of)(parameters)
    spoken = jax.vmap(prior.statistic)(parameters) @ family.prior_step(two.weight, two.total)
    likely = jax.vmap(lambda t: inference.log_likelihood(family, t, two))(thetas) - two.log_base
    level = knowledge(family, "prior_level")
    level = 0.0 if level is None else level()
    spoken = spoken + 2 * level
    terms = np.abs(thetas) @ np.abs(two.total) + np.abs(jax.vmap(family)(thetas)) + 1
    _near(likely, spoken, 1e3 * case.eps * terms, "the likelihood, and what the prior makes of it")
    rise = prior(whole) - prior(start) + (two + one).log_base + 3 * level
    size = abs(float(prior(whole))) + abs(float(prior(start))) + size
    _near(together, rise, 1e3 * case.eps * size, "the evidence, and A(posterior) − A(prior)")


def precision(case: Case) -> None:
    """In float32 everything is float32, and within what rounding the points costs."""
    family, points = case.family, case.points.astype(jnp.float32)

    @jax.jit
    @jax.vmap
    def look(theta, x):
        eta = to_eta(family, theta)
        return (
            family(theta),
            eta,
            to_theta(family, eta),
            base.log_prob(family, theta, x),
            base.kl(family, theta, theta * (1 + jnp.float32(2.0**-10))),
        )

    narrow = jnp.complex64 if jnp.iscomplexobj(case.drawn) else jnp.float32
    values = look(points, case.drawn[:, 0].astype(narrow))
    for v in values:
        assert v.dtype == jnp.float32, f"float32 in, {v.dtype} out"
        assert np.isfinite(np.asarray(v)).all(), f"float32: {v}"
    assert (np.asarray(values[-1]) >= 0).all(), f"float32: KL is {values[-1]}"
    eps = 1.2e-7 * case.slack
    _near(values[1], case.found["eta"], 64 * eps * case.moved("eta"), "η in float32")


CHECKS: tuple[Callable[[Case], None], ...] = (
    slopes,
    coordinates,
    legendre_transform,
    divergences,
    densities,
    sampling,
    learning,
    bad_points,
    bayes,
    precision,
)


def check_family(case: Case) -> None:
    """All checks, one after the other; raises at the first that fails."""
    for check in CHECKS:
        check(case)
