# ruff: noqa: N999 (numbered, to be read in order)
"""A fit in shards: all that data say of a law is their weight and the weighted mean of T.

Each shard makes its `Statistics`; those add up with `+`, in any order, as an all-reduce would. The
law of largest likelihood is the one whose η is that mean, and its KL from the truth is n/2N on
average, whatever the family: n numbers are learned from N events.

Run `python examples/05_fit_in_shards.py`; what it prints stands in 05_fit_in_shards.txt.
"""

import functools

import jax
import jax.numpy as jnp

import dualflat as df

jax.config.update("jax_enable_x64", True)  # a program may choose; the library never does

gamma, plane = df.Gamma(), df.Gaussian(2)
covariance = jnp.array([[2.0, 0.6], [0.6, 1.0]])
LAWS = {
    "gamma": (gamma, gamma.from_usual(shape=2.5, rate=0.5)),
    "normal on the plane": (plane, plane.from_usual(jnp.array([1.0, -2.0]), covariance)),
}


print("8 shards of weighted events, merged in two orders, against all at once")
for name, (family, theta) in LAWS.items():
    x = df.sample(family, jax.random.key(0), theta, 4096)
    weights = jnp.arange(4096) % 4 / 2.0  # 0, ½, 1, 1½; those of weight 0 may be anything
    x = jnp.where((weights == 0).reshape(-1, *[1] * (x.ndim - 1)), jnp.nan, x)
    shard = jax.jit(functools.partial(df.statistics, family))
    pieces = [shard(*part) for part in zip(jnp.split(x, 8), jnp.split(weights, 8), strict=True)]
    whole = shard(x, weights)
    print(f"  {name}: weight {whole.weight:.0f} of {x.shape[0]} events")
    for order in (pieces, pieces[::-1]):
        merged = functools.reduce(lambda a, b: a + b, order)
        gap = jnp.abs(merged.mean - whole.mean).max() / jnp.abs(whole.mean).max()
        apart = jnp.abs(df.fit(family, merged) - df.fit(family, whole)).max()
        print(f"    means agree to 1e-14: {gap < 1e-14},  fits to 1e-11: {apart < 1e-11}")

print("KL of the fit from the truth, N times its mean over 4,000 samples; n/2 in the limit")
for name, (family, theta) in LAWS.items():
    print(f"  {name}, n/2 = {family.dim / 2}")
    for count in (50, 400):

        @jax.jit
        @jax.vmap
        def excess(key, family=family, theta=theta, count=count):
            x = df.sample(family, key, theta, count)
            return df.kl(family, theta, df.fit(family, x))

        mean = count * excess(jax.random.split(jax.random.key(count), 4000)).mean()
        print(f"    N = {count:3}   {mean:.1f}")
