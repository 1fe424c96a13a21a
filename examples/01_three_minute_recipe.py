# ruff: noqa: N999 (numbered, to be read in order)
"""The three-minute recipe: one convex function ψ gives a dually flat space, step by step.

The metric is ∇²ψ, the dual coordinates are ∇ψ, and all else follows, in the lecture's order and
with its numbers. Beside each identity stands a bound of what is left of it: rounding.

Run `python examples/01_three_minute_recipe.py`; what it prints stands in 01_three_minute_recipe.txt.
"""

import jax
import jax.numpy as jnp

import dualflat as df
from dualflat.geometry import laws

jax.config.update("jax_enable_x64", True)  # a program may choose; the library never does
jnp.set_printoptions(precision=6, suppress=True)

psi = df.Categorical(2)  # laws on three outcomes; a point is an array of shape (2,)


def law(*odds):
    """θ of the law with these odds."""
    odds = jnp.array(odds, jnp.float64)
    return jnp.log(odds[1:] / odds[0])


def identity(words, residual, limit=1e-13):
    """Rounding differs from machine to machine; that it is no more than rounding does not."""
    size = float(jnp.abs(residual).max())
    print(f"  {words:52}", f"< {limit:.0e}" if size < limit else f"{size:.1e} FAILS")


p, q = law(5, 2, 3), law(6, 3, 1)

print(
    "a convex function ψ of coordinates θ, here log(1 + Σ exp θⁱ): three outcomes, θⁱ = log pᵢ/p₀"
)
print("  θ                  ", p)

print("its second derivatives are the metric, in which θ is to be straight: Γ = 0")
g = df.metric(psi, p)
print("  g = ∇²ψ            ", *g)
identity("gᵢⱼ = ∂ᵢ∂ⱼψ                                (7)", g - jax.hessian(psi)(p))

print("Legendre's transform: dual coordinates η and a dual function φ")
eta = df.to_eta(psi, p)
phi = lambda eta: df.conjugate(psi, eta)  # noqa: E731
print("  η = ∇ψ = pᵢ        ", eta)
print(f"  ψ(θ) = {psi(p):.6f},  φ(η) = {phi(eta):.6f}")
identity("ηᵢ = ∂ᵢψ(θ)                                (8)", eta - jax.grad(psi)(p))
identity("φ(η) = max ⟨θ′, η⟩ − ψ(θ′), at θ′ = θ      (9)", laws.conjugate_is_maximum(psi, p, q))
identity("θⁱ = ∂ⁱφ(η)", jax.grad(phi)(eta) - p)
identity("ψ(θ) = max ⟨θ, η′⟩ − φ(η′), at η′ = η", laws.potential_is_maximum(psi, p, q))
identity("ψ + φ = ⟨θ, η⟩", psi(p) + phi(eta) - p @ eta)

print("η is to be straight for another connection: Γ* = 0 in η. In θ it is ∂g, the dual of Γ = 0")
star = df.dual_structure(psi).dual(p)  # Γ*ᵢⱼᵏ
slopes = jax.jacfwd(lambda theta: df.metric(psi, theta))(p)  # [i, j, k] = ∂ₖgᵢⱼ
print("  ∂₁gᵢⱼ              ", *slopes[:, :, 0])
identity(
    "∂ₖgᵢⱼ = Γ*ₖⱼ,ᵢ                             (10)", slopes - jnp.einsum("kjl,li->ijk", star, g)
)
identity("Γ*ᵢⱼᵏ = (∂²ηₗ/∂θⁱ∂θʲ)(∂θᵏ/∂ηₗ)", laws.transformation(psi, p))
identity("R = 0 and R* = 0                     theorem 1", laws.both_are_flat(psi, p))

print("the metric is the Jacobian of η(θ), so indices move as coordinates change")
forth = jax.jacfwd(lambda theta: df.to_eta(psi, theta))(p)
back = jax.jacfwd(lambda eta: df.to_theta(psi, eta))(eta)
identity("gᵢⱼ = ∂ηᵢ/∂θʲ", g - forth)
identity("gⁱʲ = ∂θⁱ/∂ηⱼ", df.inverse_metric(psi, p) - back)
vector = jnp.array([0.5, -1.0])
covector = df.lower_index(psi, p, vector)
print("  vⁱ, lowered        ", vector, covector)
identity("gᵢⱼvʲ = dηᵢ(v)", covector - forth @ vector)
identity("gⁱʲvⱼ = vⁱ, as a gradient becomes natural", df.raise_index(psi, p, covector) - vector)
identity("g(∂ᵢ, ∂ʲ) = δᵢʲ                            (11)", g @ back - jnp.eye(2))

print("the divergence D(p, q) = ψ(θ_p) + φ(η_q) − ⟨θ_p, η_q⟩ has an order: here it is KL(q‖p)")
eta_q = df.to_eta(psi, q)
probs_p, probs_q = (jnp.exp(psi.log_probabilities(point)) for point in (p, q))
kl = (probs_q * jnp.log(probs_q / probs_p)).sum()
divergence = df.bregman(psi, p, q)
print(f"  D(p, q) = {divergence:.6f},  D(q, p) = {df.bregman(psi, q, p):.6f}")
identity("D(p, q) = ψ(θ_p) + φ(η_q) − ⟨θ_p, η_q⟩", divergence - (psi(p) + phi(eta_q) - p @ eta_q))
identity("D(p, q) = KL(q‖p)", divergence - kl)
identity("D(p, q) = D*(q, p), of φ", divergence - df.bregman(phi, eta_q, eta))

print("Pythagoras: a θ-straight leg and an η-straight leg that meet at a right angle")
r = law(1, 1, 4)
step = df.to_eta(psi, r) - eta_q  # the η-straight leg q → r, seen from q: a covector
leg = jnp.array([step[1], -step[0]])  # a vector that it annihilates
corner = q + 0.7 * leg  # the other end of the θ-straight leg
legs = df.bregman(psi, corner, q), df.bregman(psi, q, r)
print(f"  {legs[0]:.6f} + {legs[1]:.6f} = {df.bregman(psi, corner, r):.6f}")
identity("g(leg, leg′) = 0", df.inner(psi, q, leg, df.raise_index(psi, q, step)))
identity("D(corner, q) + D(q, r) = D(corner, r)", sum(legs) - df.bregman(psi, corner, r))
