# ruff: noqa: N999 (numbered, to be read in order)
"""The way back: from a metric and two connections to the convex function that they come from.

The normal law N(μ, σ²) in the chart x = (μ, σ), where nothing is straight. Its (g, ∇, ∇*) are
written by hand; θ, η, ψ and φ are found. Then a structure that comes from no ψ, and a divergence that hides one.

Run `python examples/02_back_to_psi.py`; what it prints stands in 02_back_to_psi.txt.
"""

import jax
import jax.numpy as jnp

import dualflat as df
from dualflat.geometry import structure as back
from dualflat.geometry.connection import sectional_curvature

jax.config.update("jax_enable_x64", True)
jnp.set_printoptions(precision=4, suppress=True)


def metric(x):
    """Fisher's: ds² = (dμ² + 2dσ²)/σ²."""
    return jnp.diag(jnp.array([1.0, 2.0])) / x[1] ** 2


def nabla(x):
    """Γᵢⱼᵏ of ∇: Γ₁₂¹ = Γ₂₁¹ = −2/σ, Γ₂₂² = −3/σ."""
    return jnp.array([[[0.0, 0.0], [-2.0, 0.0]], [[-2.0, 0.0], [0.0, -3.0]]]) / x[1]


def nabla_star(x):
    """Γᵢⱼᵏ of ∇*: Γ₁₁² = Γ₂₂² = 1/σ."""
    return jnp.array([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]) / x[1]


def bound(residual, limit=1e-12):
    """Rounding differs from machine to machine; that it is no more than rounding does not."""
    size = float(jnp.abs(residual).max())
    return f"< {limit:.0e}" if size < limit else f"{size:.1e} FAILS"


def told(report):
    """The conditions that hold in one line, then those that do not."""
    rows = list(
        zip(report.conditions, report.holds, report.residual, report.component, strict=True)
    )
    print("  hold:", ",  ".join(name for name, holds, *_ in rows if holds))
    for name, holds, residual, component in rows:
        if not holds:
            place = sorted({int(i) for i in component if i >= 0})
            where = f", indices {place}" if place else ""
            print(f"  FAILS: {name}, by {residual:.4f} at x = {report.point}{where}")


normal = df.DualStructure(metric, nabla, nabla_star)
origin, x = jnp.array([0.0, 1.0]), jnp.array([0.7, 1.6])  # N(0, 1), and N(0.7, 1.6²)

print("is (g, ∇, ∇*) dually flat?")
told(df.flatness(normal, x))

print("lemma 1: affine coordinates, here at N(0.7, 1.6²); 0 at N(0, 1), where ∂θ/∂x = I")
found = df.recover(normal, origin)
point = found.point(x)
mu, sigma = x
natural = jnp.array([mu / sigma**2, -1 / (2 * sigma**2)])
moments = jnp.array([mu, mu**2 + sigma**2])
print("  θ found                       ", point.theta)
print("  (μ/σ², −1/2σ²) + (0, ½)       ", natural + jnp.array([0.0, 0.5]))
print("  η found                       ", point.eta)
print("  (μ, μ² + σ²) − (0, 1)         ", moments - jnp.array([0.0, 1.0]))
print("  g(∂ᵢ, ∂ʲ) − δᵢʲ        (11)   ", bound(back.biorthogonality_defect(found, x)))

print("lemma 2: the metric is the Jacobian between them")
twelve, thirteen = back.jacobian_defect(found, x)
print("  ∂ηᵢ/∂θʲ − gᵢⱼ          (12)   ", bound(twelve))
print("  ∂θⁱ/∂ηⱼ − gⁱʲ          (13)   ", bound(thirteen))

print("lemma 3: a convex function")
psi, theta = found.potential, point.theta
print(f"  ψ = ∫ η·dθ = {point.psi:.6f},  φ = ∫ θ·dη = {point.phi:.6f}")
print("  ψ + φ − ⟨θ, η⟩                ", bound(back.legendre_defect(found, x)))
print("  ∇ψ(θ) − η               (8)   ", bound(jax.grad(psi)(theta) - point.eta))
basis = jnp.linalg.inv(point.frame)  # its columns are the ∂ᵢ
by_hand = basis.T @ metric(x) @ basis  # g in the coordinates θ
print("  ∇²ψ(θ) − g              (7)   ", bound(jax.hessian(psi)(theta) - by_hand))

print("ψ is unique up to an affine function and an affine θ; say both, and it is the textbook's")
choice = {"theta": jnp.array([0.0, -0.5]), "eta": jnp.array([0.0, 1.0])}  # at N(0, 1)
book = df.recover(normal, origin, **choice, level=0.5 * jnp.log(2 * jnp.pi))
known = df.Gaussian(1)
print("  θ − (μ/σ², −1/2σ²)            ", bound(book.theta(x) - natural))
print("  η − (μ, μ² + σ²)              ", bound(book.eta(x) - moments))
print("  ψ − ψ of df.Gaussian(1)       ", bound(book.psi(x) - known(natural)))
print("  φ − φ of df.Gaussian(1)       ", bound(book.phi(x) - df.conjugate(known, moments)))

print("no ψ: Levi-Civita's connection for both is dual and free of torsion, but curved")
riemann = df.levi_civita(metric)
curved = df.DualStructure(metric, riemann, riemann)
told(df.flatness(curved, origin))
curvature = sectional_curvature(metric, riemann, origin, *jnp.eye(2))
print(f"  curvature of the plane {curvature:.4f}")
print("  asked for θ all the same:", df.recover(curved, origin).theta(x))

print("a divergence will do: KL(x′‖x) of the normal laws, as a formula in (μ, σ)")


def divergence(x, base):
    (m, s), (m0, s0) = x, base
    return jnp.log(s / s0) + (s0**2 + (m - m0) ** 2) / (2 * s**2) - 0.5


again = df.from_divergence(divergence)
print("  g, Γ, Γ* − those by hand      ", end=" ")
pairs = (again.metric, metric), (again.primal, nabla), (again.dual, nabla_star)
print(*(bound(ours(x) - hand(x)) for ours, hand in pairs), sep=",  ")
base = jnp.array([-0.4, 0.8])
print(
    "  is it a Bregman divergence?   ", bool(back.bregman_report(divergence, x, base).holds.all())
)
theta, theta_base = found.theta(x), found.theta(base)
print(
    f"  D(x, base) = {divergence(x, base):.6f},  of ψ found: {df.bregman(psi, theta, theta_base):.6f}"
)
