# ruff: noqa: N999 (numbered, to be read in order)
"""One convex function gives the whole geometry: duality, metric, divergence, Pythagoras.

Run `python examples/01_geometry.py`; what it prints stands in 01_geometry.txt.
"""

import jax
import jax.numpy as jnp

import dualflat as df

jax.config.update("jax_enable_x64", True)  # a program may choose; the library never does
jnp.set_printoptions(precision=6, suppress=True)

psi = df.Categorical(2)  # laws on three outcomes; a point is an array of shape (2,)


def law(*odds):
    """θ of the law with these odds."""
    odds = jnp.array(odds, jnp.float64)
    return jnp.log(odds[1:] / odds[0])


print("two coordinate systems for one law")
p = law(2, 3, 5)
eta = df.to_eta(psi, p)
print("  θ = log pᵢ/p₀      ", p)
print("  η = ∇ψ(θ) = pᵢ     ", eta)
print("  back to θ          ", df.to_theta(psi, eta))
print(f"  ψ(θ) + φ(η) = {psi(p) + df.conjugate(psi, eta):.6f},  ⟨θ, η⟩ = {p @ eta:.6f}")

print("the metric is the Jacobian between them")
g = df.metric(psi, p)
g_dual = jax.hessian(lambda eta: df.conjugate(psi, eta))(eta)  # ∇²φ
print("  G = ∇²ψ            ", g[0], g[1])
print("  ∇²φ ∇²ψ            ", (g_dual @ g)[0], (g_dual @ g)[1])

print("a gradient is a covector; G⁻¹ makes it a vector, the natural gradient")
seen = jnp.array([0.1, 0.2])
covector = jax.grad(lambda theta: df.fenchel_young(psi, theta, seen))(p)
print("  ∂L/∂θ = η − seen   ", covector)
print("  G⁻¹ ∂L/∂θ          ", df.raise_index(psi, p, covector))

print("the divergence has an order, and reads backwards in the dual coordinates")
q = law(6, 3, 1)
print(f"  D(p, q) = {df.bregman(psi, p, q):.6f},  D(q, p) = {df.bregman(psi, q, p):.6f}")
probs_p, probs_q = (jnp.exp(psi.log_probabilities(x)) for x in (p, q))
kl = (probs_q * jnp.log(probs_q / probs_p)).sum()
phi = lambda eta: df.conjugate(psi, eta)  # noqa: E731
dual = df.bregman(phi, df.to_eta(psi, q), df.to_eta(psi, p))
print(f"  KL(q‖p) = {kl:.6f},  the same with φ: {dual:.6f}")

print("Pythagoras: a θ-straight leg and an η-straight leg that meet at a right angle")
r = law(1, 1, 4)
covector = df.to_eta(psi, r) - df.to_eta(psi, q)  # the η-straight leg q → r, seen from q
leg = jnp.array([covector[1], -covector[0]])  # a vector that it annihilates: a right angle
corner = q + 0.7 * leg  # the other end of the θ-straight leg
angle = df.inner(psi, q, leg, df.raise_index(psi, q, covector))
print(f"  inner product of the legs at q: {abs(angle):.6f}")
legs = df.bregman(psi, corner, q), df.bregman(psi, q, r)
print(f"  {legs[0]:.6f} + {legs[1]:.6f} = {sum(legs):.6f}")
print(f"  D(corner, r)        = {df.bregman(psi, corner, r):.6f}")
