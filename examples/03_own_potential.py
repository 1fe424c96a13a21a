# ruff: noqa: N999 (numbered, to be read in order)
"""A potential of your own: any strictly convex function, and everything follows.

Here ψ(θ) = log Σₖ exp⟨aₖ, θ⟩ for points aₖ of the plane: the laws on these points that have the
greatest entropy for their mean η. The range of ∇ψ is the inside of the polygon they span.

Run `python examples/03_own_potential.py`; what it prints stands in 03_own_potential.txt.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

import dualflat as df

jnp.set_printoptions(precision=4, suppress=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OnPoints:
    """Laws on the rows of `points`, shape (k, n); a pytree, so the points can be differentiated."""

    points: Array

    def __call__(self, theta: Array, /) -> Array:
        return jax.nn.logsumexp(self.points @ theta)


psi = OnPoints(jnp.array([[0.0, 0.0], [2.0, 0.0], [3.0, 2.0], [1.0, 3.0], [-1.0, 1.0]]))
mean = jnp.array([1.5, 1.0])

print("which law has this mean? No closed form: damped Newton")
found = df.dual_point(psi, mean)
theta = found.checked()
print("  θ          ", theta)
print("  ∇ψ(θ)      ", df.to_eta(psi, theta))
print("  covariance ", *df.metric(psi, theta))
entropy = psi(theta) - theta @ mean  # −φ(η)
print(f"  entropy     {entropy:.4f}, of the uniform law {jnp.log(5.0):.4f}")

print("a mean outside the polygon has no law, and says so")
outside = jnp.array([3.0, 3.0])
try:
    df.dual_point(psi, outside).checked()
except RuntimeError as error:
    print("  RuntimeError:", str(error).partition(" after")[0])
print("  θ(η) =", df.to_theta(psi, outside), "also inside jit: never a plausible number")

print("derivatives pass through the search: how θ moves with the mean, and with a point")
print("  ∂θ/∂η       ", *jax.jacobian(lambda eta: df.to_theta(psi, eta))(mean))
by_points = jax.grad(lambda psi: df.conjugate(psi, mean))(psi).points
print("  ∂φ/∂a₂      ", by_points[2], " = −p₂ θ =", -jax.nn.softmax(psi.points @ theta)[2] * theta)


@jax.jit
def book(psi, theta, base):
    """The formula as every textbook has it."""
    return psi(theta) - psi(base) - jax.grad(psi)(base) @ (theta - base)


print("near points in float32, against float64")
print("  distance   book right to 1 %   bregman right to 1e-5")
for exponent in range(6):
    other = theta + 10.0**-exponent * jnp.array([0.6, -0.8])
    with jax.enable_x64(True):
        wide = OnPoints(psi.points.astype(jnp.float64))
        truth = float(df.bregman(wide, other.astype(jnp.float64), theta.astype(jnp.float64)))
    plain, ours = (float(d(psi, other, theta)) for d in (book, df.bregman))
    right = abs(plain / truth - 1) < 1e-2, abs(ours / truth - 1) < 1e-5
    print(f"  1e-{exponent}       {'yes' if right[0] else 'no':19} {'yes' if right[1] else 'no'}")
