"""The theorems, each as a function that returns by how much it fails, and the table of them all.

A residual is an array that is zero in exact arithmetic. It has no units: a vector is measured as
√Gᵢᵢ vⁱ, a covector as wᵢ/√Gᵢᵢ, a tensor index by index in the same way, and what comes out is
divided by 1 + the size of what was compared; so a residual does not change with the units of the
coordinates. Each law asks only for a potential and points, in θ; a new potential earns all of them
by being named once. `LAWS` is what tests, benchmarks, documents and `dualflat verify` read.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import connection, geodesic, projection, structure, transport
from dualflat.geometry.connection import dual_structure, levi_civita
from dualflat.geometry.divergence import bregman, fenchel_young
from dualflat.geometry.legendre import conjugate, to_eta, to_theta
from dualflat.geometry.metric import inverse_metric, lower_index, metric, raise_index
from dualflat.geometry.potential import Potential, in_domain
from dualflat.geometry.submanifold import EFlat, MFlat

PANELS = 2  # of 12 nodes, for a curve between points that are near
ALPHA = 1 / 3  # where a law speaks of any α: neither flat nor Levi-Civita's


# --- units ---------------------------------------------------------------------------------------


def _units(psi: Potential, theta: Array) -> Array:
    """√Gᵢᵢ, shape (n,): the length of ∂/∂θᵢ."""
    return jnp.sqrt(jnp.diagonal(metric(psi, theta)))


def _unitless(tensor: Array, units: Array, kinds: str) -> Array:
    """The tensor, its indices `kinds` ("l" for lower, "u" for upper, in order) freed of units."""
    for axis, kind in enumerate(kinds, start=tensor.ndim - len(kinds)):
        scale = units if kind == "u" else 1 / units
        tensor = tensor * scale.reshape(-1, *[1] * (tensor.ndim - axis - 1))
    return tensor


def _equal(left: Array, right: Array, units: Array, kinds: str) -> Array:
    """left − right, free of units, relative to 1 + the largest entry of either."""
    left, right = (_unitless(side, units, kinds) for side in (left, right))
    return (left - right) / (1 + jnp.maximum(jnp.abs(left).max(), jnp.abs(right).max()))


def _relative(terms: Array, *more: Array) -> Array:
    """Σ terms, relative to Σ |terms|; 0 where all of them are 0. Shape ()."""
    flat = jnp.concatenate([jnp.ravel(t) for t in (terms, *more)])
    size = jnp.abs(flat).sum()
    return flat.sum() / jnp.where(size > 0, size, 1.0)


def _vanishing(defect: Array, size: Array, units: Array, kinds: str) -> Array:
    """What should be 0, free of units, relative to 1 + the largest entry of `size`."""
    size = jnp.abs(_unitless(size, units, kinds)).max()
    return _unitless(defect, units, kinds) / (1 + size)


def _white(psi: Potential, theta: Array) -> Array:
    """W with WᵀGW = I, or ±1 on the diagonal where G is not definite. Shape (n, n)."""
    g = metric(psi, theta)
    length = jnp.sqrt(jnp.abs(jnp.diagonal(g)))
    length = jnp.where(length > 0, length, 1.0)
    values, vectors = jnp.linalg.eigh(g / (length[:, None] * length))
    return vectors / (length[:, None] * jnp.sqrt(jnp.maximum(jnp.abs(values), 1e-4)))


def _moved(psi: Potential, point: Array, step: Array) -> Array:
    """point + t·step with the largest t of 1, ½, ¼, … that stays in the domain and is moderate.

    Moderate: no direction has become more than twice as long or short, squared; no law is easier to
    see where ψ is saturated. A ψ that turns concave is followed there.
    """
    lengths, white = 0.5 ** jnp.arange(24, dtype=point.dtype), _white(psi, point)

    def fine(t):
        there = point + t * step
        stretch = jnp.linalg.eigvalsh(white.T @ metric(psi, there) @ white)
        moderate = (stretch[0] >= 0.5) & (stretch[-1] <= 2.0)
        return in_domain(psi, there) & (moderate | (stretch[0] < -0.01))

    good = jax.vmap(fine)(lengths)
    return jnp.where(good.any(), point + lengths[jnp.argmax(good)] * step, point)


# --- Riemannian geometry, (1)-(4) ----------------------------------------------------------------


def levi_civita_keeps_the_metric(psi: Potential, theta: Array) -> Array:
    """∂ₖgᵢⱼ = Γₖᵢ,ⱼ + Γₖⱼ,ᵢ for the Levi-Civita connection of G, (1) and (3). Shape (n, n, n)."""
    field = dual_structure(psi).metric
    defect = connection.metric_defect(field, levi_civita(field), theta)
    return _vanishing(defect, jax.jacfwd(field)(theta), _units(psi, theta), "lll")


def levi_civita_has_no_torsion(psi: Potential, theta: Array) -> Array:
    """Γᵢⱼᵏ = Γⱼᵢᵏ for the Levi-Civita connection of G, (2) and (4). Shape (n, n, n)."""
    nabla = levi_civita(dual_structure(psi).metric)
    return _vanishing(connection.torsion(nabla, theta), nabla(theta), _units(psi, theta), "llu")


# --- dual connections, (5), (6), theorem 1 -------------------------------------------------------


def dual_connections_keep_the_metric(psi: Potential, theta: Array) -> Array:
    """∂ₖgᵢⱼ = Γₖᵢ,ⱼ + Γ*ₖⱼ,ᵢ, (5), for (∇, ∇*) and for (∇^(α), ∇^(−α)). Shape (2, n, n, n)."""
    pairs = dual_structure(psi), dual_structure(psi, ALPHA)
    defects = jnp.stack([connection.duality_defect(pair, theta) for pair in pairs])
    size = connection.cubic_tensor(psi, theta)
    return _vanishing(defects, size, _units(psi, theta), "lll")


def torsions_cancel(psi: Potential, theta: Array) -> Array:
    """Tᵢⱼᵏ + T*ᵢⱼᵏ = 0, (6), for ∇^(α) and ∇^(−α). Shape (n, n, n)."""
    pair = dual_structure(psi, ALPHA)
    size = pair.dual(theta)
    return _vanishing(connection.torsion_defect(pair, theta), size, _units(psi, theta), "llu")


def mean_is_levi_civita(psi: Potential, theta: Array) -> Array:
    """½(∇ + ∇*) is the Levi-Civita connection of G. Shape (n, n, n), first kind."""
    pair = dual_structure(psi)
    size = connection.cubic_tensor(psi, theta)
    return _vanishing(connection.mean_defect(pair, theta), size, _units(psi, theta), "lll")


def both_are_flat(psi: Potential, theta: Array) -> Array:
    """R = 0 for Γ = 0, so R* = 0 for its dual: theorem 1 at the two flat ends. (n, n, n, n).

    R* is taken from fourth derivatives of ψ, by way of the connection that (5) makes of Γ = 0.
    """
    pair = dual_structure(psi)
    dual = connection.conjugate_connection(pair.metric, pair.primal)
    size = _products(dual(theta), dual(theta))
    bend = connection.curvature_tensor(dual, theta)
    return _vanishing(bend, size, _units(psi, theta), "lllu")


def curvatures_are_dual(psi: Potential, theta: Array) -> Array:
    """g(R(X, Y)Z, W) = −g(Z, R*(X, Y)W): theorem 1 where neither is 0. Shape (n, n, n, n).

    For ∇^(α) and ∇^(−α), each curvature by differentiating its Γ.
    """
    pair = dual_structure(psi).alpha(ALPHA)
    size = _products(pair.primal(theta), pair.dual(theta)) @ pair.metric(theta)
    return _vanishing(connection.curvature_defect(pair, theta), size, _units(psi, theta), "llll")


def alpha_curvature(psi: Potential, theta: Array) -> Array:
    """Rᵢⱼₖˡ = ¼(1 − α²)(TᵢₖᵐTⱼₘˡ − TⱼₖᵐTᵢₘˡ): no fourth derivative is left in it. (n, n, n, n)."""
    closed = connection.curvature_tensor(connection.alpha_connection(psi, ALPHA), theta)
    generic = connection.curvature_tensor(dual_structure(psi).alpha(ALPHA).primal, theta)
    return _equal(generic, closed, _units(psi, theta), "lllu")


def _products(gamma: Array, other: Array) -> Array:
    """ΓⱼₖᵐΓ′ᵢₘˡ, of which curvatures are made, (n, n, n, n)."""
    return jnp.einsum("jkm,iml->ijkl", gamma, other)


# --- the recipe, (7)-(11) ------------------------------------------------------------------------


def strict_convexity(psi: Potential, theta: Array) -> Array:
    """∇²ψ is positive definite. Shape (): 0 if it is, otherwise 1 − λ₁/λₙ of its eigenvalues.

    The eigenvalues are those of Gᵢⱼ/√(GᵢᵢGⱼⱼ), which have no units, and to be definite the least
    must be more than rounding.
    """
    g = metric(psi, theta)
    diagonal = jnp.diagonal(g)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    values = jnp.linalg.eigvalsh(g / (scale[:, None] * scale))
    shape = values[0] / jnp.abs(values).max()
    definite = shape > theta.shape[0] * jnp.finfo(theta.dtype).eps
    return jnp.where(definite, 0.0, 1 - shape)


def metric_is_hessian(psi: Potential, theta: Array) -> Array:
    """gᵢⱼ = ∂ᵢ∂ⱼψ, (7): whatever ψ knows of G against its second derivatives. Shape (n, n)."""
    return _equal(metric(psi, theta), jax.hessian(psi)(theta), _units(psi, theta), "ll")


def dual_coordinates_are_gradient(psi: Potential, theta: Array) -> Array:
    """ηᵢ = ∂ᵢψ, (8): whatever ψ knows of η against its derivative. Shape (n,)."""
    return _equal(to_eta(psi, theta), jax.grad(psi)(theta), _units(psi, theta), "l")


def conjugate_is_maximum(psi: Potential, theta: Array, other: Array) -> Array:
    """φ(η) = max ⟨θ′, η⟩ − ψ(θ′), (9): reached at θ′ = θ, and no θ′ gives more. Shape (2,)."""
    eta = to_eta(psi, theta)
    phi = conjugate(psi, eta)
    reached, elsewhere = (_relative(jnp.stack([-psi(t), -phi]), t * eta) for t in (theta, other))
    return jnp.stack([reached, jnp.maximum(elsewhere, 0.0)])


def dual_gradient(psi: Potential, theta: Array) -> Array:
    """θⁱ = ∂ⁱφ(η), the first of the dual relations. Shape (n,)."""
    found = jax.grad(lambda eta: conjugate(psi, eta))(to_eta(psi, theta))
    return _round_trip(psi, theta, found)


def potential_is_maximum(psi: Potential, theta: Array, other: Array) -> Array:
    """ψ(θ) = max ⟨θ, η′⟩ − φ(η′), the second: reached at η′ = η, and no η′ gives more. (2,)."""
    value = psi(theta)

    def excess(point):
        eta = to_eta(psi, point)
        return _relative(jnp.stack([-conjugate(psi, eta), -value]), theta * eta)

    return jnp.stack([excess(theta), jnp.maximum(excess(other), 0.0)])


def fenchel_young_equality(psi: Potential, theta: Array) -> Array:
    """ψ(θ) + φ(η) = ⟨θ, η⟩ at η = ∇ψ(θ), the third. Shape (), relative to the terms."""
    eta = to_eta(psi, theta)
    return _relative(jnp.stack([psi(theta), conjugate(psi, eta)]), -theta * eta)


def involution(psi: Potential, theta: Array) -> Array:
    """(∇ψ)⁻¹(∇ψ(θ)) = θ: the dual of the dual point is the point. Shape (n,)."""
    return _round_trip(psi, theta, to_theta(psi, to_eta(psi, theta)))


def _round_trip(psi: Potential, theta: Array, found: Array) -> Array:
    """found − θ in units of the metric, relative to what rounding θ and η is a fraction of."""
    units = _units(psi, theta)
    size = jnp.maximum(jnp.abs(theta * units).max(), jnp.abs(to_eta(psi, theta) / units).max())
    return (found - theta) * units / (1 + size)


def affine_chart(psi: Potential, theta: Array) -> Array:
    """∂ₖgᵢⱼ = Γ*ₖⱼ,ᵢ, (10): what (5) says where Γ = 0. Shape (n, n, n)."""
    pair = dual_structure(psi)
    size = connection.cubic_tensor(psi, theta)
    return _vanishing(connection.affine_chart_defect(pair, theta), size, _units(psi, theta), "lll")


def transformation(psi: Potential, theta: Array) -> Array:
    """Γ*ᵢⱼᵏ = (∂²ηₗ/∂θᵢ∂θⱼ)(∂θₖ/∂ηₗ): Γ* = 0 in η, brought to θ. Shape (n, n, n)."""
    n = theta.shape[0]
    brought = connection.change_chart(
        lambda eta: jnp.zeros((n, n, n), eta.dtype), lambda t: to_eta(psi, t)
    )
    star = dual_structure(psi).dual(theta)
    return _equal(brought(theta), star, _units(psi, theta), "llu")


def alpha_in_dual_chart(psi: Potential, theta: Array) -> Array:
    """Γⁱʲₖ of ∇^(α) in η is that in θ after the change of coordinates θ(η). Shape (n, n, n)."""
    eta, units = to_eta(psi, theta), _units(psi, theta)
    there = connection.alpha_connection(psi, ALPHA, chart="eta")(eta)
    here = connection.change_chart(
        connection.alpha_connection(psi, ALPHA), lambda e: to_theta(psi, e)
    )(eta)
    return _equal(here, there, units, "uul")


def raising_is_changing_coordinates(psi: Potential, theta: Array, other: Array) -> Array:
    """gᵢⱼ vʲ = η̇ᵢ along v and gⁱʲ wⱼ = θ̇ⁱ along w: indices move as coordinates do. Shape (2, n)."""
    eta, units = to_eta(psi, theta), _units(psi, theta)
    v, w = other - theta, to_eta(psi, other) - eta
    _, eta_dot = jax.jvp(lambda t: to_eta(psi, t), (theta,), (v,))
    _, theta_dot = jax.jvp(lambda e: to_theta(psi, e), (eta,), (w,))
    lowered = _equal(lower_index(psi, theta, v), eta_dot, units, "l")
    raised = _equal(raise_index(psi, theta, w), theta_dot, units, "u")
    return jnp.stack([lowered, raised])


def biorthogonality(psi: Potential, theta: Array) -> Array:
    """⟨∂/∂θᵢ, ∂/∂ηⱼ⟩ = δᵢⱼ, (11): the two coordinate frames are dual in the metric. Shape (n, n).

    ∂/∂ηⱼ is the derivative of θ(η), taken through the dual map, not an inverse of G.
    """
    frame = jax.jacfwd(lambda eta: to_theta(psi, eta))(to_eta(psi, theta))
    product = metric(psi, theta) @ frame
    return _equal(product, jnp.eye(theta.shape[0], dtype=theta.dtype), _units(psi, theta), "lu")


def metric_is_jacobian(psi: Potential, theta: Array) -> Array:
    """gᵢⱼ = ∂ηᵢ/∂θʲ, (12). Shape (n, n)."""
    jacobian = jax.jacfwd(lambda t: to_eta(psi, t))(theta)
    return _equal(jacobian, metric(psi, theta), _units(psi, theta), "ll")


def inverse_metric_is_jacobian(psi: Potential, theta: Array) -> Array:
    """gⁱʲ = ∂θⁱ/∂ηⱼ, (13). Shape (n, n)."""
    jacobian = jax.jacfwd(lambda eta: to_theta(psi, eta))(to_eta(psi, theta))
    return _equal(jacobian, inverse_metric(psi, theta), _units(psi, theta), "uu")


def dual_metrics_are_inverse(psi: Potential, theta: Array) -> Array:
    """∇²φ(η) ∇²ψ(θ) = I at η = ∇ψ(θ). Shape (n, n). Differentiates φ twice, through its search."""
    dual = jax.hessian(lambda eta: conjugate(psi, eta))(to_eta(psi, theta))
    identity = jnp.eye(theta.shape[0], dtype=theta.dtype)
    return _equal(dual @ metric(psi, theta), identity, _units(psi, theta), "ul")


# --- the way back, lemmas 1-3 --------------------------------------------------------------------


def lemma_1(psi: Potential, theta: Array, other: Array) -> Array:
    """Affine coordinates θ, η with g(∂ᵢ, ∂ʲ) = δᵢʲ are found from (g, ∇, ∇*). Shape (n² + 2n,).

    (g, ∇, ∇*) is given in a chart where nothing is straight, with its origin at θ; at the other
    point the coordinates that were found are compared with the true ones, and (11) is looked at.
    """
    found, x = _recovered(psi, theta, other)
    units = _units(psi, other)
    parts = [
        _equal(found.theta(x), other, units, "u"),
        _equal(found.eta(x), to_eta(psi, other), units, "l"),
        _unitless(structure.biorthogonality_defect(found, x), units, "lu").ravel(),
    ]
    return jnp.concatenate(parts)


def lemma_2(psi: Potential, theta: Array, other: Array) -> Array:
    """gᵢⱼ = ∂ηᵢ/∂θʲ, (12), and gⁱʲ = ∂θⁱ/∂ηⱼ, (13), of the coordinates found. Shape (2, n, n)."""
    return structure.jacobian_defect(*_recovered(psi, theta, other))


def lemma_3(psi: Potential, theta: Array, other: Array) -> Array:
    """ψ and φ are found again as ∫ η·dθ and ∫ θ·dη, with ψ + φ = ⟨θ, η⟩. Shape (3,)."""
    found, x = _recovered(psi, theta, other)
    eta = to_eta(psi, other)
    size = jnp.abs(psi(other)) + jnp.abs(conjugate(psi, eta)) + jnp.abs(other * eta).sum()
    terms = [found.psi(x) - psi(other), found.phi(x) - conjugate(psi, eta)]
    return jnp.stack([*(t / (1 + size) for t in terms), structure.legendre_defect(found, x)])


def recovered_hessian(psi: Potential, theta: Array, other: Array) -> Array:
    """∂ᵢ∂ⱼ of the ψ that was found is g. Shape (n, n)."""
    found, _ = _recovered(psi, theta, other)
    return _equal(jax.hessian(found.potential)(other), metric(psi, other), _units(psi, other), "ll")


def canonical_divergence(psi: Potential, theta: Array, other: Array) -> Array:
    """∫ (η − η′)·dθ, made from (g, ∇, ∇*) alone, is D(θ, θ′). Shape (), relative to D."""
    pair, x = _hidden(psi, theta, other)
    found = structure.canonical_divergence(pair, x, jnp.zeros_like(x))
    return found / bregman(psi, other, theta) - 1


def eguchi(psi: Potential, theta: Array) -> Array:
    """g = −∂∂′D, Γᵢⱼ,ₖ = −∂ᵢ∂ⱼ∂′ₖD, Γ*ᵢⱼ,ₖ = −∂′ᵢ∂′ⱼ∂ₖD where the points meet. Shape (n² + 2n³,)."""
    found = structure.from_divergence(lambda t, b: bregman(psi, t, b))
    pair, units = dual_structure(psi), _units(psi, theta)
    parts = [_equal(found.metric(theta), pair.metric(theta), units, "ll")]
    parts += [
        _equal(a(theta), b(theta), units, "llu")
        for a, b in ((found.primal, pair.primal), (found.dual, pair.dual))
    ]
    return jnp.concatenate([part.ravel() for part in parts])


def _hidden(psi: Potential, theta: Array, other: Array) -> tuple[connection.DualStructure, Array]:
    """(g, ∇, ∇*) of ψ in a chart x where neither θ nor η is straight, and the x of the other point.

    θ(x) = θ + ½x(1 + |x|²), |x| = 1 at the other point: rays from x = 0 stay in the convex domain.
    """
    step, weights = other - theta, _units(psi, theta) ** 2
    size = weights @ step**2

    def chart(x):
        return theta + 0.5 * x * (1 + weights @ x**2 / size)

    return dual_structure(psi).in_chart(chart), step


def _recovered(psi: Potential, theta: Array, other: Array) -> tuple[structure.DuallyFlat, Array]:
    """What is found again from (g, ∇, ∇*), its free constants as ψ has them, and where to look."""
    pair, x = _hidden(psi, theta, other)
    found = structure.recover(
        pair,
        jnp.zeros_like(x),
        frame=0.5 * jnp.eye(x.shape[0], dtype=x.dtype),
        theta=theta,
        eta=to_eta(psi, theta),
        level=psi(theta),
    )
    return found, x


# --- divergence ----------------------------------------------------------------------------------


def convexity(psi: Potential, theta: Array, base: Array) -> Array:
    """D(θ, θ′) ≥ 0, and ⟨Δθ, Δη⟩ = D(θ, θ′) + D(θ′, θ) > 0 for distinct points. Shape (2,).

    First the negative part of D in both orders (0 if the law holds), then the equality, relative.
    """
    there, back = bregman(psi, theta, base), bregman(psi, base, theta)
    monotone = (theta - base) @ (to_eta(psi, theta) - to_eta(psi, base))
    negative = jnp.minimum(jnp.minimum(there, back), 0.0)
    return jnp.stack([negative, (there + back) / monotone - 1])


def gap_is_divergence(psi: Potential, theta: Array, base: Array) -> Array:
    """ψ(θ) + φ(η′) − ⟨θ, η′⟩ = D_ψ(θ, θ′) for η′ = ∇ψ(θ′). Shape ().

    Relative to D and to Σ|θᵢ − θᵢ′||ηᵢ′|, by which rounding η′ changes the left side.
    """
    divergence, eta = bregman(psi, theta, base), to_eta(psi, base)
    size = divergence + jnp.abs(theta - base) @ jnp.abs(eta)
    return (fenchel_young(psi, theta, eta) - divergence) / size


def legendre_duality(psi: Potential, theta: Array, base: Array) -> Array:
    """D_ψ(θ, θ′) = D_φ(η′, η): the dual divergence is the divergence read backwards. Shape ().

    Relative to the terms of the book's formula for φ, which is the right side.
    """
    eta, eta_base = to_eta(psi, theta), to_eta(psi, base)
    slope = jax.grad(lambda e: conjugate(psi, e))(eta)
    terms = [-bregman(psi, theta, base), conjugate(psi, eta_base), -conjugate(psi, eta)]
    return _relative(jnp.stack(terms), -slope * (eta_base - eta))


def three_points(psi: Potential, p: Array, q: Array, r: Array) -> Array:
    """D(p, r) = D(p, q) + D(q, r) + ⟨θ_p − θ_q, η_q − η_r⟩ for any three points. Shape ().

    Relative to the terms. Pythagoras is the case in which the last term vanishes.
    """
    cross = (p - q) * (to_eta(psi, q) - to_eta(psi, r))
    parts = jnp.stack([-bregman(psi, p, r), bregman(psi, p, q), bregman(psi, q, r)])
    return _relative(parts, cross)


def pythagoras(psi: Potential, p: Array, q: Array, r: Array) -> Array:
    """D(p′, r) = D(p′, q) + D(q, r) where q → p′ is a θ-geodesic orthogonal to q → r. Shape ().

    p′ = q + u, with u along the part of p − q that is orthogonal, in the metric at q, to the
    η-geodesic from q to r, whose direction there is G⁻¹(η_r − η_q); as much of it as stays in the
    domain and moderate. Relative to the left side.
    """
    covector = to_eta(psi, r) - to_eta(psi, q)
    direction = raise_index(psi, q, covector)
    toward = p - q
    corner = _moved(psi, q, toward - direction * (covector @ toward) / (covector @ direction))
    whole = bregman(psi, corner, r)
    return (whole - bregman(psi, corner, q) - bregman(psi, q, r)) / whole


def hessian_of_divergence(psi: Potential, theta: Array) -> Array:
    """∂ᵢ∂ⱼD = −∂ᵢ∂′ⱼD = ∂′ᵢ∂′ⱼD = gᵢⱼ where the points meet. Shape (3, n, n)."""
    by_point = jax.grad(lambda t, b: bregman(psi, t, b))
    by_base = jax.grad(lambda t, b: bregman(psi, t, b), argnums=1)
    found = jnp.stack(
        [
            jax.jacfwd(by_point)(theta, theta),
            -jax.jacfwd(by_point, argnums=1)(theta, theta),
            jax.jacfwd(by_base, argnums=1)(theta, theta),
        ]
    )
    return _equal(found, metric(psi, theta), _units(psi, theta), "ll")


# --- straight lines, transport, projection -------------------------------------------------------


def dual_line_is_geodesic(psi: Potential, theta: Array, other: Array) -> Array:
    """θ̈ᵏ + Γ*ᵢⱼᵏθ̇ⁱθ̇ʲ = 0 along the line that is straight in η, at its middle. Shape (n,)."""
    line = geodesic.m_geodesic(psi, theta, other)

    def velocity(t):
        return jax.jvp(line, (t,), (jnp.ones_like(t),))[1]

    half = jnp.full((), 0.5, theta.dtype)
    speed, bend = jax.jvp(velocity, (half,), (jnp.ones_like(half),))
    turn = connection.contract(dual_structure(psi).dual, line(half), speed, speed)
    return _equal(bend, -turn, _units(psi, line(half)), "u")


def geodesic_by_equation(psi: Potential, theta: Array, other: Array) -> Array:
    """The ∇*-geodesic from its differential equation is the line straight in η. Shape (n,)."""
    half = jnp.full((), 0.5, theta.dtype)
    solved = geodesic.geodesic(dual_structure(psi).dual, theta, other, panels=PANELS)(half)
    closed = geodesic.m_geodesic(psi, theta, other)(half)
    return _equal(solved, closed, _units(psi, closed), "u")


def riemannian_distance(psi: Potential, theta: Array, other: Array) -> Array:
    """d(p, q) = |log_p q| = |log_q p|: the Levi-Civita geodesic keeps its speed. Shape (2,), relative."""
    field = dual_structure(psi).metric
    path = geodesic.geodesic(levi_civita(field), theta, other, panels=PANELS)
    ends = [(field(p), path.velocity(t)) for t, p in ((0.0, theta), (1.0, other))]
    speeds = jnp.stack([jnp.sqrt(v @ g @ v) for g, v in ends])
    return speeds / geodesic.distance(field, theta, other, panels=PANELS) - 1


def constant_fields(psi: Potential, theta: Array, other: Array) -> Array:
    """g(aⁱ∂ᵢ, bⱼ∂ʲ) = aⁱbᵢ everywhere: ∇ carries a along, ∇* carries b. Shape (n, n)."""
    basis = jnp.eye(theta.shape[0], dtype=theta.dtype)
    carried = jax.vmap(lambda v: transport.m_transport(psi, other, theta, v), out_axes=1)(basis)
    return _equal(metric(psi, other) @ carried, metric(psi, theta), _units(psi, theta), "ll")


def transport_by_equation(psi: Potential, theta: Array, other: Array) -> Array:
    """∇*-transport, V̇ᵏ = −Γ*ᵢⱼᵏẋⁱVʲ, keeps η components: G(q)V(q) = G(p)V(p). Shape (n, n)."""
    carried = transport.transport_matrix(
        dual_structure(psi).dual, geodesic.e_geodesic(psi, theta, other), panels=PANELS
    )
    return _equal(metric(psi, other) @ carried, metric(psi, theta), _units(psi, theta), "ll")


def transport_keeps_products(psi: Potential, theta: Array, other: Array) -> Array:
    """g(A, B) = g(A′, B′), (5) along a curve, for A carried by ∇^(α), B by ∇^(−α). Shape (n, n)."""
    line = geodesic.e_geodesic(psi, theta, other)
    defect = transport.transport_defect(dual_structure(psi, ALPHA), line, panels=PANELS)
    return _unitless(defect, _units(psi, theta), "ll")


def holonomy_of_flat(psi: Potential, p: Array, q: Array, r: Array) -> Array:
    """A′ = A for ∇, so B′ = B for ∇*, carried round the triangle p, q, r: R = R* = 0. Shape (n, n)."""
    turned = transport.holonomy(dual_structure(psi).dual, _triangle(p, q, r), panels=3 * PANELS)
    return _equal(turned, jnp.eye(p.shape[0], dtype=p.dtype), _units(psi, p), "ul")


def holonomies_are_dual(psi: Potential, p: Array, q: Array, r: Array) -> Array:
    """g(A′, B′) = g(A, B) round the triangle p, q, r, flat or not: theorem 1's proof. Shape (n, n).

    A is carried by ∇^(α), B by ∇^(−α), which are curved: neither comes back.
    """
    defect = transport.holonomy_defect(
        dual_structure(psi, ALPHA), _triangle(p, q, r), panels=3 * PANELS
    )
    return _unitless(defect, _units(psi, p), "ll")


def _triangle(p: Array, q: Array, r: Array) -> Callable[[Array], Array]:
    """t ↦ the point on the way from p by q and r back to p; t = ⅓ and ⅔ are the corners."""

    def at(t):
        corners = jnp.stack([p, q, r, p])
        side = jnp.clip(jnp.floor(3 * t), 0, 2).astype(int)
        start = corners[side]
        return start + (3 * t - side) * (corners[side + 1] - start)

    return at


def m_projection_theorem(psi: Potential, p: Array, q: Array, r: Array) -> Array:
    """The nearest point to p of the θ-line through q and r: a right angle, Pythagoras. Shape (2,).

    The cosine of the angle at the projection p′, and D(r, p) = D(r, p′) + D(p′, p), relative.
    """
    line = EFlat(r, (q - r)[:, None])
    foot = projection.m_projection(psi, p, line).value
    return _right_angle(psi, p, foot, line, *projection.pythagoras(psi, r, foot, p))


def e_projection_theorem(psi: Potential, p: Array, q: Array, r: Array) -> Array:
    """The nearest point to p of the η-line through q and r: a right angle, Pythagoras. Shape (2,).

    The cosine of the angle at the projection p′, and D(p, r) = D(p, p′) + D(p′, r), relative.
    """
    eta = to_eta(psi, r)
    line = MFlat(eta, (to_eta(psi, q) - eta)[:, None])
    foot = projection.e_projection(psi, p, line).value
    return _right_angle(psi, p, foot, line, *projection.pythagoras(psi, p, foot, r))


def _right_angle(
    psi: Potential, p: Array, foot: Array, line: EFlat | MFlat, whole: Array, legs: Array
) -> Array:
    cosine = projection.orthogonality(psi, p, foot, line)[0]
    return jnp.stack([cosine, (whole - legs) / whole])


# --- points and tolerances -----------------------------------------------------------------------


def random_points(psi: Potential, key: Array, start: Array) -> tuple[Array, Array, Array]:
    """Three points of the domain at random: one a few steps from `start`, two a step from that one.

    A step is normal with covariance ¼G⁻¹, so that it means the same in all units, and is halved
    until it stays in the domain and G does not change much on the way. Where G is not definite its
    eigenvalues count by their size, so that a ψ that is not convex can be looked at as well.

    Args:
      psi: the potential.
      key: a JAX random key.
      start: shape (n,), inside the domain.

    Returns:
      three arrays (n,); a step is left out where no part of it stays inside.
    """

    def move(theta, key):
        noise = jax.random.normal(key, theta.shape, theta.dtype)
        return _moved(psi, theta, 0.5 * _white(psi, theta) @ noise)

    *first, second, third = jax.random.split(key, 6)
    point, _ = jax.lax.scan(lambda t, k: (move(t, k), None), start, jnp.stack(first))
    near = jax.vmap(lambda k: move(point, k))(jnp.stack([second, third]))
    return point, near[0], near[1]


def condition(psi: Potential, theta: Array) -> Array:
    """κ = λₙ/λ₁ of Gᵢⱼ/√(GᵢᵢGⱼⱼ), shape (): by how much a solve with G multiplies rounding.

    1 if G is diagonal, in whatever units; NaN where G is not positive definite.
    """
    units = _units(psi, theta)
    values = jnp.linalg.eigvalsh(metric(psi, theta) / (units[:, None] * units))
    return jnp.where(values[0] > 0, values[-1] / values[0], jnp.nan)


@dataclasses.dataclass(frozen=True)
class Law:
    """A theorem of the table: where it stands, what it says, and when its residual is rounding.

    Attributes:
      residual: (ψ, points…) ↦ an array that is 0 in exact arithmetic.
      number: of the lecture's equation, theorem or lemma; empty for what follows from them.
      statement: the law as a formula, in one line.
      part: the heading that it belongs to.
      solves: whether G is solved with, or the dual map inverted, on the way to the residual.
      factor: the constant of the tolerance.
    """

    residual: Callable[..., Array]
    number: str
    statement: str
    part: str
    solves: bool = False
    factor: float = 100.0

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.residual.__name__

    @property
    def numbers(self) -> tuple[str, ...]:
        """Its numbers one by one: ("1", "3"), ("theorem 1",) or none."""
        if self.number.startswith("("):
            return tuple(word.strip("()") for word in self.number.split())
        return (self.number,) if self.number else ()

    @property
    def points(self) -> int:
        """How many points it takes."""
        return len(inspect.signature(self.residual).parameters) - 1

    @property
    def words(self) -> str:
        """The first line of the function's docstring."""
        return (self.residual.__doc__ or "").partition("\n")[0]

    def worst(self, psi: Potential, *points: Array) -> Array:
        """The largest |residual| at as many points as it takes, shape (); NaN if any entry is."""
        return jnp.abs(self.residual(psi, *points[: self.points])).max()

    def tolerance(self, dtype: Any, condition: Array | float) -> Array:
        """C·ε, times κ where G is solved with: what rounding alone may leave of a residual.

        Args:
          dtype: of the points.
          condition: the largest `condition` of the points.
        """
        scale = jnp.asarray(condition if self.solves else 1.0, dtype)
        return self.factor * float(jnp.finfo(dtype).eps) * scale


RIEMANN = "Riemannian geometry, for comparison"
DUAL = "Dual connections"
RECIPE = "The three-minute recipe: everything from ψ"
BACK = "The way back: ψ from (g, ∇, ∇*)"
DIVERGENCE = "Divergence and Pythagoras"
STRAIGHT = "Straight lines, transport, projection"

# In the order of the lecture: `dualflat verify` prints them so, and the documents follow them.
LAWS: tuple[Law, ...] = (
    Law(levi_civita_keeps_the_metric, "(1) (3)", "∂ₖgᵢⱼ = Γₖᵢ,ⱼ + Γₖⱼ,ᵢ", RIEMANN, solves=True),
    Law(levi_civita_has_no_torsion, "(2) (4)", "Γᵢⱼᵏ = Γⱼᵢᵏ", RIEMANN, solves=True),
    Law(dual_connections_keep_the_metric, "(5)", "∂ₖgᵢⱼ = Γₖᵢ,ⱼ + Γ*ₖⱼ,ᵢ", DUAL, solves=True),
    Law(torsions_cancel, "(6)", "T + T* = 0", DUAL, solves=True),
    Law(mean_is_levi_civita, "", "½(∇ + ∇*) is Levi-Civita's", DUAL, solves=True),
    Law(both_are_flat, "theorem 1", "R = 0  ⇔  R* = 0", DUAL, solves=True),
    Law(curvatures_are_dual, "theorem 1", "g(R(X,Y)Z, W) + g(Z, R*(X,Y)W) = 0", DUAL, solves=True),
    Law(alpha_curvature, "", "Rᵢⱼₖˡ = ¼(1−α²)(TᵢₖᵐTⱼₘˡ − TⱼₖᵐTᵢₘˡ)", DUAL, solves=True),
    Law(strict_convexity, "", "∇²ψ is positive definite", RECIPE),
    Law(metric_is_hessian, "(7)", "gᵢⱼ = ∂ᵢ∂ⱼψ", RECIPE),
    Law(dual_coordinates_are_gradient, "(8)", "ηᵢ = ∂ᵢψ(θ)", RECIPE),
    Law(conjugate_is_maximum, "(9)", "φ(η) = max ⟨θ′,η⟩ − ψ(θ′)", RECIPE, solves=True),
    Law(dual_gradient, "dual", "θⁱ = ∂ⁱφ(η)", RECIPE, solves=True),
    Law(potential_is_maximum, "dual", "ψ(θ) = max ⟨θ,η′⟩ − φ(η′)", RECIPE, solves=True),
    Law(fenchel_young_equality, "dual", "ψ(θ) + φ(η) = ⟨θ,η⟩", RECIPE, solves=True),
    Law(involution, "", "(∇ψ)⁻¹(∇ψ(θ)) = θ", RECIPE, solves=True),
    Law(affine_chart, "(10)", "∂ₖgᵢⱼ = Γ*ₖⱼ,ᵢ", RECIPE, solves=True),
    Law(transformation, "", "Γ*ᵢⱼᵏ = ∂ᵢ∂ⱼηₗ ∂θᵏ/∂ηₗ", RECIPE, solves=True),
    Law(alpha_in_dual_chart, "", "Γ of ∇^(α) in η = Γ in θ, changed", RECIPE, solves=True),
    Law(raising_is_changing_coordinates, "", "gᵢⱼvʲ = η̇ᵢ,  gⁱʲwⱼ = θ̇ⁱ", RECIPE, solves=True),
    Law(biorthogonality, "(11)", "g(∂ᵢ, ∂ʲ) = δᵢʲ", RECIPE, solves=True),
    Law(metric_is_jacobian, "(12)", "gᵢⱼ = ∂ηᵢ/∂θʲ", RECIPE),
    Law(inverse_metric_is_jacobian, "(13)", "gⁱʲ = ∂θⁱ/∂ηⱼ", RECIPE, solves=True),
    Law(dual_metrics_are_inverse, "", "∇²φ ∇²ψ = I", RECIPE, solves=True),
    Law(lemma_1, "lemma 1", "θ, η from (g, ∇, ∇*), g(∂ᵢ, ∂ʲ) = δᵢʲ", BACK, solves=True),
    Law(lemma_2, "lemma 2", "gᵢⱼ = ∂ηᵢ/∂θʲ,  gⁱʲ = ∂θⁱ/∂ηⱼ", BACK, solves=True),
    Law(lemma_3, "lemma 3", "ψ = ∫ η·dθ,  φ = ∫ θ·dη,  ψ + φ = ⟨θ,η⟩", BACK, solves=True),
    Law(recovered_hessian, "", "∂ᵢ∂ⱼ of the ψ found = gᵢⱼ", BACK, solves=True),
    Law(eguchi, "", "g, Γ, Γ* from the divergence", BACK, solves=True),
    Law(canonical_divergence, "", "D from (g, ∇, ∇*)", BACK, solves=True),
    Law(convexity, "", "D ≥ 0,  D(p,q) + D(q,p) = ⟨Δθ,Δη⟩", DIVERGENCE),
    Law(gap_is_divergence, "", "ψ(θ) + φ(η′) − ⟨θ,η′⟩ = D(θ,θ′)", DIVERGENCE, solves=True),
    Law(legendre_duality, "", "D_ψ(p,q) = D_φ(q*,p*)", DIVERGENCE, solves=True),
    Law(hessian_of_divergence, "", "∂∂D = −∂∂′D = ∂′∂′D = g", DIVERGENCE),
    Law(three_points, "", "D(p,r) = D(p,q) + D(q,r) + ⟨Δθ,Δη⟩", DIVERGENCE),
    Law(pythagoras, "", "right angle at q:  D(p,r) = D(p,q) + D(q,r)", DIVERGENCE, solves=True),
    Law(dual_line_is_geodesic, "", "η straight:  θ̈ + Γ*θ̇θ̇ = 0", STRAIGHT, solves=True),
    Law(geodesic_by_equation, "", "θ̈ + Γ*θ̇θ̇ = 0:  η straight", STRAIGHT, solves=True),
    Law(constant_fields, "", "g(aⁱ∂ᵢ, bⱼ∂ʲ) = aⁱbᵢ everywhere", STRAIGHT, solves=True),
    Law(transport_by_equation, "", "∇*-parallel: η components stay", STRAIGHT, solves=True),
    Law(
        transport_keeps_products, "(5)", "g(A′, B′) = g(A, B) along a curve", STRAIGHT, solves=True
    ),
    Law(holonomy_of_flat, "theorem 1", "round a loop:  A′ = A  ⇔  B′ = B", STRAIGHT, solves=True),
    Law(
        holonomies_are_dual,
        "theorem 1",
        "round a loop:  g(A′, B′) = g(A, B)",
        STRAIGHT,
        solves=True,
    ),
    Law(riemannian_distance, "", "d(p,q) = |log_p q| = |log_q p|", STRAIGHT, solves=True),
    Law(m_projection_theorem, "", "nearest point of a θ-line: ⊥", STRAIGHT, solves=True),
    Law(e_projection_theorem, "", "nearest point of an η-line: ⊥", STRAIGHT, solves=True),
)
