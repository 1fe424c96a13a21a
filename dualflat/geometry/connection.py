"""Connections as functions of a point: Levi-Civita's, the α-family of a potential, dual pairs.

A *metric field* is any callable x ↦ (gᵢⱼ), shape (n, n). A *connection* is any callable x ↦ Γ with
`gamma[i, j, k]` = Γᵢⱼᵏ, shape (n, n, n), so that ∇_{∂ᵢ}∂ⱼ = Γᵢⱼᵏ∂ₖ. Both speak of one chart, and a
*chart* is a callable from other coordinates to those, y ↦ x. What this module returns are pytrees
that can be called: they pass through `jit`, and the parameters inside them can be differentiated.

A connection may know more than its values; like a potential's knowledge it is found by attribute
and never required:

| attribute | what it says |
| --- | --- |
| `contract(x, u, v)` | Γᵢⱼᵏuⁱvʲ, shape (n,), without forming n³ numbers |
| `curvature_tensor(x)` | Rᵢⱼₖˡ, where there is a way without derivatives of Γ |
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from dualflat.geometry import legendre, linalg
from dualflat.geometry import metric as metric_of
from dualflat.geometry._tree import as_tree, compiled, register
from dualflat.geometry.potential import Potential, checked_points, in_domain, knowledge

Metric = Callable[[Array], Array]
Connection = Callable[[Array], Array]
Chart = Callable[[Array], Array]


# --- the two kinds ---------------------------------------------------------------------------


def first_kind(g: Array, gamma: Array) -> Array:
    """Γᵢⱼ,ₖ = Γᵢⱼˡ gₗₖ from the metric (n, n) and Γ of the second kind (n, n, n)."""
    return gamma @ g


def second_kind(g: Array, lower: Array) -> Array:
    """Γᵢⱼᵏ = Γᵢⱼ,ₗ gˡᵏ from the metric (n, n) and Γ of the first kind (n, n, n).

    NaN where the metric is not positive definite.
    """
    n = g.shape[0]
    return linalg.solve_pd(g, lower.reshape(n * n, n).T).T.reshape(n, n, n)


def contract(connection: Connection, x: Array, u: Array, v: Array) -> Array:
    """Γᵢⱼᵏ uⁱ vʲ at x, shape (n,): what ∇ᵤ adds to the derivative of v along u.

    By the connection's own `contract` where it has one, which costs a few derivatives along u
    and v and not n³ numbers.
    """
    own = knowledge(connection, "contract")
    if own is not None:
        return own(x, u, v)
    return jnp.einsum("ijk,i,j->k", connection(x), u, v)


# --- connections -----------------------------------------------------------------------------


@register
@dataclasses.dataclass(frozen=True)
class LeviCivita:
    """The connection without torsion that keeps g: Γᵢⱼ,ₖ = ½(∂ᵢgⱼₖ + ∂ⱼgᵢₖ − ∂ₖgᵢⱼ).

    Attributes:
      metric: x ↦ (n, n).
    """

    metric: Metric

    @compiled
    def __call__(self, x: Array) -> Array:
        """Γᵢⱼᵏ, shape (n, n, n)."""
        return second_kind(self.metric(x), _levi_civita_lower(self.metric, x))

    def contract(self, x: Array, u: Array, v: Array) -> Array:
        """Γᵢⱼᵏuⁱvʲ = ½ g⁻¹(∂ᵤg·v + ∂ᵥg·u − ∂(uᵀgv)), shape (n,)."""
        g, along_u = jax.jvp(self.metric, (x,), (u,))
        along_v = along_u if v is u else jax.jvp(self.metric, (x,), (v,))[1]
        slope = jax.grad(lambda y: u @ self.metric(y) @ v)(x)
        return linalg.solve_pd(g, (along_u @ v + along_v @ u - slope) / 2)


def levi_civita(metric: Metric) -> LeviCivita:
    """The Levi-Civita connection of any metric field: the one that (1) and (2) determine.

        ∂ₖgᵢⱼ = Γₖᵢ,ⱼ + Γₖⱼ,ᵢ,    Γᵢⱼᵏ = Γⱼᵢᵏ.

    Args:
      metric: x ↦ (n, n), symmetric and positive definite; Γ is NaN where it is not.

    >>> polar = lambda x: jnp.diag(jnp.array([1.0, x[0] ** 2]))  # dr² + r²dφ²
    >>> levi_civita(polar)(jnp.array([2.0, 0.0]))[1]  # Γ_φφ^r = −r, Γ_φr^φ = 1/r
    Array([[ 0. ,  0.5],
           [-2. ,  0. ]], dtype=float32)
    """
    return LeviCivita(as_tree(metric))


def _levi_civita_lower(metric: Metric, x: Array) -> Array:
    slope = jax.jacfwd(metric)(x)  # [i, j, k] = ∂ₖgᵢⱼ
    by_first = jnp.moveaxis(slope, 2, 0)
    return (by_first + by_first.swapaxes(0, 1) - slope) / 2


def cubic_tensor(psi: Potential, theta: Array) -> Array:
    """The Amari-Chentsov tensor Tᵢⱼₖ = ∂ᵢ∂ⱼ∂ₖψ(θ): the third cumulants of a family of laws.

    It is the difference of the dual connections, Γ*ᵢⱼ,ₖ − Γᵢⱼ,ₖ, and all that is to be known
    of them beyond the metric.

    Args:
      psi: the potential.
      theta: shape (n,).

    Returns:
      shape (n, n, n), exactly symmetric; NaN outside the domain.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> theta = jnp.log(jnp.array([3.0]))  # p = ¾, third cumulant p(1−p)(1−2p)
    >>> cubic_tensor(Categorical(1), theta).round(3)
    Array([[[-0.094]]], dtype=float32)
    """
    (theta,) = checked_points(psi, "cubic_tensor", theta=theta)
    return _cubic_tensor(as_tree(psi), theta)


@compiled
def _cubic_tensor(psi: Potential, theta: Array) -> Array:
    third = jax.jacfwd(lambda t: metric_of.metric(psi, t))(theta)
    # One of the six equal entries stands for all of them.
    i, j, k = np.sort(np.indices(third.shape), axis=0)
    return third[i, j, k] * _nan_outside(psi, theta)


def _nan_outside(psi: Potential, theta: Array) -> Array:
    """1, or NaN outside the domain: a factor, so that derivatives are NaN there too."""
    return jnp.where(in_domain(psi, theta), 1.0, jnp.nan).astype(theta.dtype)


@register
@dataclasses.dataclass(frozen=True)
class AlphaConnection:
    """∇^(α) of a potential in its θ coordinates: Γᵢⱼ,ₖ = ½(1 − α) Tᵢⱼₖ. See `alpha_connection`.

    Attributes:
      psi: the potential.
      alpha: 1 for ∇, 0 for Levi-Civita's, −1 for ∇*.
    """

    psi: Potential
    alpha: Array | float

    @compiled
    def __call__(self, theta: Array) -> Array:
        """Γᵢⱼᵏ, shape (n, n, n)."""
        return self._weight(theta) * second_kind(
            metric_of.metric(self.psi, theta), cubic_tensor(self.psi, theta)
        )

    def contract(self, theta: Array, u: Array, v: Array) -> Array:
        """Γᵢⱼᵏuⁱvʲ = ½(1 − α) G⁻¹∂ᵤ∂ᵥ∇ψ, shape (n,)."""
        third = _second_along(self.psi, theta, u, v)
        return self._weight(theta) * metric_of.metric_operator(self.psi, theta).solve(third)

    @compiled
    def curvature_tensor(self, theta: Array) -> Array:
        """Rᵢⱼₖˡ = ¼(1 − α²)(TᵢₖᵐTⱼₘˡ − TⱼₖᵐTᵢₘˡ): the fourth derivatives of ψ cancel."""
        t = second_kind(metric_of.metric(self.psi, theta), cubic_tensor(self.psi, theta))
        half = jnp.einsum("ikm,jml->ijkl", t, t)
        weight = self._weight(theta)
        return weight * (1 - weight) * (half - half.swapaxes(0, 1))

    def _weight(self, theta: Array) -> Array:
        return (1 - jnp.asarray(self.alpha, theta.dtype)) / 2


@register
@dataclasses.dataclass(frozen=True)
class DualChartAlphaConnection:
    """∇^(α) of a potential in its η coordinates: Γⁱʲₖ = −½(1 + α) gⁱᵃgʲᵇTₐᵦₖ at θ(η).

    Attributes:
      psi: the potential.
      alpha: as in `AlphaConnection`.
    """

    psi: Potential
    alpha: Array | float

    @compiled
    def __call__(self, eta: Array) -> Array:
        """Γⁱʲₖ, shape (n, n, n)."""
        theta = legendre.to_theta(self.psi, eta)
        frame = metric_of.inverse_metric(self.psi, theta)  # row i is ∂/∂ηᵢ in θ coordinates
        third = cubic_tensor(self.psi, theta)
        return self._weight(eta) * jnp.einsum("ia,jb,abk->ijk", frame, frame, third)

    def contract(self, eta: Array, u: Array, v: Array) -> Array:
        """Γⁱʲₖuᵢvⱼ, shape (n,)."""
        theta = legendre.to_theta(self.psi, eta)
        g = metric_of.metric_operator(self.psi, theta)
        u, v = g.solve(u), g.solve(v)
        return self._weight(eta) * _second_along(self.psi, theta, u, v)

    def _weight(self, eta: Array) -> Array:
        return -(1 + jnp.asarray(self.alpha, eta.dtype)) / 2


def alpha_connection(
    psi: Potential, alpha: Array | float, *, chart: str = "theta"
) -> AlphaConnection | DualChartAlphaConnection:
    """∇^(α) = ½(1 + α)∇ + ½(1 − α)∇*, the line through the dual connections of a potential.

        Γᵢⱼ,ₖ = ½(1 − α) Tᵢⱼₖ in θ,    Γⁱʲ,ᵏ = −½(1 + α) Tⁱʲᵏ in η,    T = ∂³ψ.

    α = 1 is ∇, flat in θ (the e-connection of a family of laws); α = −1 is ∇*, flat in η (the
    m-connection); α = 0 is Levi-Civita's; ∇^(−α) is the dual of ∇^(α).

    Args:
      psi: the potential.
      alpha: any real number; may be traced and differentiated.
      chart: "theta" or "eta", the coordinates that the connection speaks of. For others see
        `change_chart`.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> theta = jnp.log(jnp.array([3.0]))
    >>> alpha_connection(Categorical(1), -1.0)(theta).round(4)  # T/G = 1 − 2p
    Array([[[-0.5]]], dtype=float32)
    """
    if chart not in ("theta", "eta"):
        raise ValueError(
            f"alpha_connection: chart is {chart!r}. Wanted 'theta' or 'eta'; for other coordinates"
            " use change_chart."
        )
    kind = AlphaConnection if chart == "theta" else DualChartAlphaConnection
    return kind(as_tree(psi), alpha)


def _second_along(psi: Potential, theta: Array, u: Array, v: Array) -> Array:
    """∂ᵤ∂ᵥ∇ψ(θ) = Tᵢⱼₖuⁱvʲ, shape (n,)."""

    def along_v(t):
        return jax.jvp(lambda s: metric_of.gradient(psi, s), (t,), (v,))[1]

    return jax.jvp(along_v, (theta,), (u,))[1] * _nan_outside(psi, theta)


@register
@dataclasses.dataclass(frozen=True)
class ConjugateConnection:
    """The ∇* that (5) gives a connection: Γ*ₖⱼ,ᵢ = ∂ₖgᵢⱼ − Γₖᵢ,ⱼ. See `conjugate_connection`.

    Attributes:
      metric: x ↦ (n, n).
      connection: x ↦ (n, n, n).
    """

    metric: Metric
    connection: Connection

    @compiled
    def __call__(self, x: Array) -> Array:
        """Γ*ᵢⱼᵏ, shape (n, n, n)."""
        g, slope = self.metric(x), jax.jacfwd(self.metric)(x)
        lower = first_kind(g, self.connection(x))
        return second_kind(g, jnp.einsum("ijk->kji", slope) - lower.swapaxes(1, 2))


def conjugate_connection(metric: Metric, connection: Connection) -> ConjugateConnection:
    """The dual of a connection, which is determined by the metric and keeps it together with ∇:

        X g(Y, Z) = g(∇_X Y, Z) + g(Y, ∇*_X Z).

    The dual of the dual is the connection itself, and Levi-Civita's is its own.

    Args:
      metric: x ↦ (n, n).
      connection: x ↦ (n, n, n), in the same chart.
    """
    return ConjugateConnection(as_tree(metric), as_tree(connection))


@register
@dataclasses.dataclass(frozen=True)
class MeanConnection:
    """½(1 + α)∇ + ½(1 − α)∇* of any two connections. See `mean_connection`.

    Attributes:
      primal, dual: x ↦ (n, n, n), in one chart.
      alpha: 0 for the mean.
    """

    primal: Connection
    dual: Connection
    alpha: Array | float

    @compiled
    def __call__(self, x: Array) -> Array:
        """Γᵢⱼᵏ, shape (n, n, n)."""
        alpha = jnp.asarray(self.alpha, x.dtype)
        return ((1 + alpha) * self.primal(x) + (1 - alpha) * self.dual(x)) / 2

    def contract(self, x: Array, u: Array, v: Array) -> Array:
        """Γᵢⱼᵏuⁱvʲ, shape (n,)."""
        alpha = jnp.asarray(self.alpha, x.dtype)
        first, second = (contract(c, x, u, v) for c in (self.primal, self.dual))
        return ((1 + alpha) * first + (1 - alpha) * second) / 2


def mean_connection(
    primal: Connection, dual: Connection, alpha: Array | float = 0.0
) -> MeanConnection:
    """½(∇ + ∇*), and with α every connection ½(1 + α)∇ + ½(1 − α)∇* on the line through the two.

    If the two are dual and (6) holds, T + T* = 0, the mean is Levi-Civita's.

    Args:
      primal, dual: x ↦ (n, n, n), in one chart.
      alpha: any real number.
    """
    return MeanConnection(as_tree(primal), as_tree(dual), alpha)


# --- other coordinates -----------------------------------------------------------------------


@register
@dataclasses.dataclass(frozen=True)
class ConnectionInChart:
    """A connection seen from other coordinates. See `change_chart`.

    Attributes:
      connection: x ↦ (n, n, n).
      chart: y ↦ x.
    """

    connection: Connection
    chart: Chart

    @compiled
    def __call__(self, y: Array) -> Array:
        """Γₐᵦᶜ in the coordinates y, shape (n, n, n)."""
        frame, bend = jax.jacfwd(self.chart)(y), jax.hessian(self.chart)(y)
        gamma = self.connection(self.chart(y))
        there = jnp.einsum("ijk,ia,jb->kab", gamma, frame, frame) + bend
        n = y.shape[0]
        return jnp.moveaxis(jnp.linalg.solve(frame, there.reshape(n, n * n)).reshape(n, n, n), 0, 2)

    def contract(self, y: Array, u: Array, v: Array) -> Array:
        """Γₐᵦᶜuᵃvᵇ, shape (n,)."""

        def along(s, w):
            return jax.jvp(self.chart, (s,), (w,))

        (x, x_u), (_, bend) = jax.jvp(lambda s: along(s, u), (y,), (v,))
        there = contract(self.connection, x, x_u, along(y, v)[1]) + bend
        return jnp.linalg.solve(jax.jacfwd(self.chart)(y), there)


def change_chart(connection: Connection, chart: Chart) -> ConnectionInChart:
    """A connection in the coordinates y, given x(y): Γ is no tensor, and the second term says so,

        Γₐᵦᶜ = (∂yᶜ/∂xᵏ)(Γᵢⱼᵏ ∂ₐxⁱ ∂ᵦxʲ + ∂ₐ∂ᵦxᵏ).

    With Γ = 0 in x = η and y = θ it is the lecture's Γ*ᵢⱼᵏ = (∂²ηₗ/∂θᵢ∂θⱼ)(∂θₖ/∂ηₗ).

    Args:
      connection: x ↦ (n, n, n).
      chart: y ↦ x, twice differentiable with an invertible Jacobian. Only this direction is
        needed, and its inverse never is.

    >>> flat = lambda x: jnp.zeros((2, 2, 2))
    >>> to_plane = lambda y: y[0] * jnp.array([jnp.cos(y[1]), jnp.sin(y[1])])  # from (r, φ)
    >>> change_chart(flat, to_plane)(jnp.array([2.0, 0.0]))[1].round(4)
    Array([[ 0. ,  0.5],
           [-2. ,  0. ]], dtype=float32)
    """
    return ConnectionInChart(as_tree(connection), as_tree(chart))


@compiled
def _pulled_back(metric: Metric, chart: Chart, y: Array) -> Array:
    frame = jax.jacfwd(chart)(y)
    g = frame.T @ metric(chart(y)) @ frame
    return (g + g.T) / 2


def pull_back(metric: Metric, chart: Chart) -> Metric:
    """The metric that y ↦ x brings back: gₐᵦ = gᵢⱼ ∂ₐxⁱ ∂ᵦxʲ.

    Args:
      metric: x ↦ (n, n).
      chart: y ↦ x; for an immersion of fewer coordinates the induced metric.
    """
    return Partial(_pulled_back, as_tree(metric), as_tree(chart))


# --- dual structures -------------------------------------------------------------------------


@register
@dataclasses.dataclass(frozen=True)
class DualStructure:
    """A manifold with a metric and two connections, (g, ∇, ∇*), as functions in one chart.

    That they are dual, (5), and free of torsion together, (6), is not assumed:
    `duality_defect` and `torsion_defect` say by how much they are not.

    Attributes:
      metric: x ↦ (n, n).
      primal, dual: x ↦ (n, n, n).
    """

    metric: Metric
    primal: Connection
    dual: Connection

    def swapped(self) -> "DualStructure":
        """(g, ∇*, ∇): the dual manifold."""
        return DualStructure(self.metric, self.dual, self.primal)

    def alpha(self, alpha: Array | float) -> "DualStructure":
        """(g, ∇^(α), ∇^(−α)): dual again, with the same Levi-Civita connection between them."""
        return DualStructure(
            self.metric,
            mean_connection(self.primal, self.dual, alpha),
            mean_connection(self.dual, self.primal, alpha),
        )

    def in_chart(self, chart: Chart) -> "DualStructure":
        """The same manifold in the coordinates y, given y ↦ x."""
        return DualStructure(
            pull_back(self.metric, chart),
            change_chart(self.primal, chart),
            change_chart(self.dual, chart),
        )


def dual_structure(psi: Potential, alpha: Array | float = 1.0) -> DualStructure:
    """(g, ∇^(α), ∇^(−α)) of a potential in its θ coordinates; without α, the dually flat (g, ∇, ∇*).

        g = ∇²ψ,    Γ = 0,    Γ*ᵢⱼ,ₖ = ∂ᵢ∂ⱼ∂ₖψ.

    Args:
      psi: the potential.
      alpha: any real number.
    """
    psi = as_tree(psi)
    return DualStructure(
        Partial(metric_of.metric, psi), AlphaConnection(psi, alpha), AlphaConnection(psi, -alpha)
    )


# --- tensors ---------------------------------------------------------------------------------


def torsion(connection: Connection, x: Array) -> Array:
    """Tᵢⱼᵏ = Γᵢⱼᵏ − Γⱼᵢᵏ, (4). Shape (n, n, n)."""
    gamma = connection(x)
    return gamma - gamma.swapaxes(0, 1)


def curvature_tensor(connection: Connection, x: Array) -> Array:
    """Rᵢⱼₖˡ with R(∂ᵢ, ∂ⱼ)∂ₖ = Rᵢⱼₖˡ∂ₗ, where R(X, Y) = ∇_X∇_Y − ∇_Y∇_X − ∇_[X,Y].

        Rᵢⱼₖˡ = ∂ᵢΓⱼₖˡ − ∂ⱼΓᵢₖˡ + ΓⱼₖᵐΓᵢₘˡ − ΓᵢₖᵐΓⱼₘˡ.

    By the connection's own `curvature_tensor` where it has one; otherwise by this formula, with
    derivatives of Γ by automatic differentiation.

    Returns:
      shape (n, n, n, n).

    >>> polar = lambda x: jnp.diag(jnp.array([1.0, x[0] ** 2]))
    >>> bool(jnp.all(curvature_tensor(levi_civita(polar), jnp.array([2.0, 0.0])) == 0))
    True
    """
    own = knowledge(connection, "curvature_tensor")
    if own is not None:
        return own(x)
    return _curvature_tensor(as_tree(connection), x)


@compiled
def _curvature_tensor(connection: Connection, x: Array) -> Array:
    gamma, slope = connection(x), jax.jacfwd(connection)(x)  # slope[j, k, l, i] = ∂ᵢΓⱼₖˡ
    half = jnp.einsum("jkli->ijkl", slope) + jnp.einsum("jkm,iml->ijkl", gamma, gamma)
    return half - half.swapaxes(0, 1)


def ricci_tensor(connection: Connection, x: Array) -> Array:
    """Ricⱼₖ = Rᵢⱼₖⁱ, the trace of X ↦ R(X, ∂ⱼ)∂ₖ. Shape (n, n); (n−1)g/r² on a sphere."""
    return jnp.einsum("ijki->jk", curvature_tensor(connection, x))


def scalar_curvature(metric: Metric, connection: Connection, x: Array) -> Array:
    """gʲᵏRicⱼₖ, shape (); n(n−1)/r² on a sphere of radius r."""
    return jnp.trace(linalg.solve_pd(metric(x), ricci_tensor(connection, x)))


def sectional_curvature(
    metric: Metric, connection: Connection, x: Array, u: Array, v: Array
) -> Array:
    """g(R(u, v)v, u) / (|u|²|v|² − ⟨u, v⟩²), the curvature of the plane that u and v span.

    For Levi-Civita's connection it does not depend on the choice of u and v in the plane; for a
    dual pair it is their common value only where the curvature is constant.

    Returns:
      shape (); 1/r² on a sphere, NaN where u and v are dependent.
    """
    g = metric(x)
    # R(u, u) = 0 and the area is that of u and of the part of v across u: written with that part,
    # less cancels for a narrow pair.
    across = v - u * (u @ g @ v) / (u @ g @ u)
    turned = jnp.einsum("ijkl,i,j,k->l", curvature_tensor(connection, x), u, across, v)
    return (turned @ g @ u) / (linalg.quadratic_form(g, u) * linalg.quadratic_form(g, across))


def covariant_derivative(
    connection: Connection, field: Callable[[Array], Array], x: Array
) -> Array:
    """∇ᵢVᵏ = ∂ᵢVᵏ + ΓᵢⱼᵏVʲ of a vector field V: x ↦ (n,). Shape (n, n), rows by direction i."""
    return jax.jacfwd(field)(x).T + jnp.einsum("ijk,j->ik", connection(x), field(x))


# --- what makes a pair dual ------------------------------------------------------------------


def metric_defect(metric: Metric, connection: Connection, x: Array) -> Array:
    """∂ₖgᵢⱼ − Γₖᵢ,ⱼ − Γₖⱼ,ᵢ = (∇ₖg)ᵢⱼ at [k, i, j]: 0 where (3) holds. Shape (n, n, n).

    For one of a dual pair it is the cubic tensor Γ*ₖᵢ,ⱼ − Γₖᵢ,ⱼ of the pair.
    """
    return duality_defect(DualStructure(metric, connection, connection), x)


def duality_defect(structure: DualStructure, x: Array) -> Array:
    """∂ₖgᵢⱼ − Γₖᵢ,ⱼ − Γ*ₖⱼ,ᵢ at [k, i, j]: 0 where (5) holds. Shape (n, n, n)."""
    g, slope = structure.metric(x), jax.jacfwd(structure.metric)(x)
    primal, dual = (first_kind(g, c(x)) for c in (structure.primal, structure.dual))
    return jnp.moveaxis(slope, 2, 0) - primal - dual.swapaxes(1, 2)


def torsion_defect(structure: DualStructure, x: Array) -> Array:
    """Tᵢⱼᵏ + T*ᵢⱼᵏ: 0 where (6) holds. Shape (n, n, n)."""
    return torsion(structure.primal, x) + torsion(structure.dual, x)


def mean_defect(structure: DualStructure, x: Array) -> Array:
    """½(Γ + Γ*) − Γ of Levi-Civita, first kind: 0 where (5) and (6) hold. Shape (n, n, n)."""
    mean = mean_connection(structure.primal, structure.dual)
    return first_kind(structure.metric(x), mean(x)) - _levi_civita_lower(structure.metric, x)


def affine_chart_defect(structure: DualStructure, x: Array) -> Array:
    """∂ₖgᵢⱼ − Γ*ₖⱼ,ᵢ at [k, i, j]: 0 by (10) where x are affine coordinates of ∇. (n, n, n)."""
    g, slope = structure.metric(x), jax.jacfwd(structure.metric)(x)
    return jnp.moveaxis(slope, 2, 0) - first_kind(g, structure.dual(x)).swapaxes(1, 2)


def curvature_defect(structure: DualStructure, x: Array) -> Array:
    """g(R(∂ᵢ, ∂ⱼ)∂ₖ, ∂ₗ) + g(∂ₖ, R*(∂ᵢ, ∂ⱼ)∂ₗ): theorem 1 at a point. Shape (n, n, n, n).

    It is 0 for every dual pair. So R is 0 exactly where R* is.
    """
    g = structure.metric(x)
    primal, dual = (curvature_tensor(c, x) @ g for c in (structure.primal, structure.dual))
    return primal + dual.swapaxes(2, 3)
