# ruff: noqa: N999 (numbered, to be read in order)
"""A family from a statistic: T, a support, and all of the geometry, sampling and fitting follow.

A particle in a double well, p(x) ∝ exp(θ₁x + θ₂x² + θ₃x⁴) on the line; and a normal law cut off at 0
and 2, whose ψ is known, to hold the quadrature against.

Run `python examples/06_family_from_a_statistic.py`; what it prints stands in
06_family_from_a_statistic.txt.
"""

import jax
import jax.numpy as jnp

import dualflat as df
from dualflat.geometry import laws
from dualflat.geometry.families.from_statistics import interval

jax.config.update("jax_enable_x64", True)  # a program may choose; the library never does
jnp.set_printoptions(precision=4, suppress=True)

print("a double well: T = (x, x², x⁴) on the line")
well = df.from_statistics(lambda x: jnp.stack([x, x**2, x**4]), interval(), start=[0, 0, -1])
theta = jnp.array([0.3, 2.0, -1.0])
print("  θ            ", theta)
print("  η = E T      ", df.to_eta(well, theta))
print("  G = Cov T    ", *df.metric(well, theta))
print(f"  ψ             {well(theta):.4f}")
bumps = [f"{jnp.exp(df.log_prob(well, theta, x)):.3f}" for x in (-1.0, 0.0, 1.0)]
print("  density at −1, 0, 1:", ", ".join(bumps))
print("  at θ₃ > 0 there is no law:", df.to_eta(well, theta.at[2].set(0.1)))

print("the way back: which law has these three moments?")
print("  θ(η)         ", df.to_theta(well, df.to_eta(well, theta)))
x = df.sample(well, jax.random.key(1), theta, 50_000)
error = df.fit(well, x) - theta
scaled = jnp.sqrt(len(x) * error @ df.metric(well, theta) @ error)
print(f"  from 50,000 draws, within 4 standard errors: {scaled < 4}")

print("the laws of the lecture hold, whatever T is")
other = jnp.array([-0.5, 1.0, -0.5])
book = (theta - other) @ df.to_eta(well, theta) - well(theta) + well(other)
limit = 1e-10
for name, residual in (
    ("ψ + φ = ⟨θ, η⟩, greatest at θ", laws.conjugate_is_maximum(well, theta, other)),
    ("R = 0 and R* = 0", laws.both_are_flat(well, theta)),
    ("KL = ⟨θ − θ′, η⟩ − ψ(θ) + ψ(θ′)", df.kl(well, theta, other) - book),
):
    print(f"  {name:32} < {limit:.0e}: {jnp.abs(residual).max() < limit}")

print("a normal law cut off at 0 and 2, ψ by quadrature and by the normal distribution function")
cut, normal = df.from_statistics(lambda x: jnp.stack([x, x**2]), interval(0.0, 2.0)), df.Normal()
for mean, std in ((1.0, 0.5), (-1.0, 1.0), (5.0, 2.0)):
    point = normal.from_usual(mean=mean, std=std)
    ends = jax.scipy.stats.norm.cdf(jnp.array([0.0, 2.0]), mean, std)
    gap = cut(point) - (normal(point) + jnp.log(ends[1] - ends[0]))
    print(f"  μ = {mean:4}, σ = {std}   ψ = {cut(point):8.4f}   right to 1e-12: {abs(gap) < 1e-12}")
