# ruff: noqa: N999 (numbered, to be read in order)
"""Bayes by addition: in natural coordinates a posterior is the prior plus a step that data take.

The evidence is a difference of two values of the prior's potential A, and comparing models is
comparing such differences. Emails an hour, counted by Poisson or geometric laws; then coins.

Run `python examples/04_bayes_by_addition.py`; what it prints stands in 04_bayes_by_addition.txt.
"""

import jax
import jax.numpy as jnp

import dualflat as df

jax.config.update("jax_enable_x64", True)  # a program may choose; the library never does

poisson, geometric = df.Poisson(), df.Geometric()
counts = jnp.array([4.0, 2.0, 5.0, 3.0, 3.0, 6.0, 1.0, 4.0])

print("a Poisson law and its conjugate prior, a gamma law of the rate λ")
prior = poisson.prior()
before = prior.from_usual(shape=2.0, rate=0.5)
data = df.statistics(poisson, counts)
after = df.posterior(poisson, before, data)
print(f"  prior        {before},  the step {after - before}: Σ x and −count")
print(f"  posterior    {after}")
for name, theta in (("prior", before), ("posterior", after)):
    mean, spread = df.to_eta(prior, theta)[1], df.metric(prior, theta)[1, 1] ** 0.5
    print(f"  λ by the {name:10} {mean:.2f} ± {spread:.2f}")

print("data in any order, from anywhere: one hour at a time, or in two parts that are merged")
step = before
for x in counts[::-1]:
    step = df.posterior(poisson, step, df.statistics(poisson, x[None]))
halves = df.statistics(poisson, counts[:3]) + df.statistics(poisson, counts[3:])
print("  the same posterior:", bool(jnp.abs(step - after).max() < 1e-12), end=", ")
print(bool(jnp.abs(df.posterior(poisson, before, halves) - after).max() < 1e-12))

print("the next count: λ averaged over the posterior, which is wider than the best single law")
best = df.fit(poisson, data)
for x in (0.0, 3.0, 9.0):
    average, single = df.log_predictive(poisson, after, x), df.log_prob(poisson, best, x)
    print(f"  p({x:.0f})   {jnp.exp(average):.4f}   best law {jnp.exp(single):.4f}")

print("evidence, log ∫ p(data | λ) dprior = A(posterior) − A(prior) + Σ log h: two kinds of law")
by_hand = prior(after) - prior(before) + data.log_base
kinds = {"Poisson": (poisson, before), "geometric": (geometric, jnp.array([1.0, 1.0]))}
logs = {n: df.log_evidence(f, p, df.statistics(f, counts)) for n, (f, p) in kinds.items()}
print("  " + ",  ".join(f"{name} {value:.2f}" for name, value in logs.items()))
print(f"  that is A(posterior) − A(prior) + Σ log h: {abs(by_hand - logs['Poisson']) < 1e-10}")
print(f"  odds for Poisson, e^{logs['Poisson'] - logs['geometric']:.2f} to 1")

print("is the coin fair? A point against a uniform prior of its p, after n throws with 60 % heads")
coin = df.Bernoulli()
for n in (10, 100, 1000):
    throws = df.statistics(coin, jnp.array([1.0, 0.0]), jnp.array([0.6 * n, 0.4 * n]))
    fair = df.log_likelihood(coin, jnp.zeros(1), throws)
    free = df.log_evidence(coin, jnp.ones(2), throws)
    print(f"  n = {n:4}   log odds for fair {fair - free:7.3f}")
