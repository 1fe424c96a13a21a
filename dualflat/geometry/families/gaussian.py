"""Multivariate normal laws with a full covariance matrix."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from dualflat.geometry import _numerics, linalg
from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.families.normal_wishart import NormalWishart

_Rows = list[list[Array]]  # a lower triangle, number by number


@register
@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Normal laws on ℝᵈ with mean μ and positive-definite covariance Σ; Λ = Σ⁻¹ is the precision.

    T(x) = (x, the products xᵢxⱼ for i ≥ j row by row), with respect to Lebesgue measure, so

        θ = (Λμ; −½Λᵢᵢ and −Λᵢⱼ for i > j),    η = (μ; Σᵢⱼ + μᵢμⱼ for i ≥ j),
        ψ(θ) = ½ μᵀΛμ − ½ log det Λ + ½ d log 2π,    φ(η) = −½ log det Σ − ½ d log 2πe.

    A point is an array of shape (n,), n = d + d(d+1)/2: d entries for the linear part, then the
    lower triangle by rows. Every pair i > j occurs once, so that its natural parameter is
    Λᵢⱼ and not half of it: ⟨θ, η⟩ = μ₁ᵀΛ₂μ₂ − ½ tr(Λ₂(Σ₁ + μ₁μ₁ᵀ)).

    The domain is Λ positive definite. It is tested by the pivots of a Cholesky factorisation and
    not by a determinant, which is positive for Λ = −I too; outside it everything is NaN, gradients
    included. In η the covariance is a difference, so that |μ|² ≫ Σ costs its digits: where
    rounding η has left no covariance, the answer is NaN. Keep (μ, Σ) or (μ, L) there.

    Attributes:
      d: dimension of x, at least 1.

    >>> psi = Gaussian(2)
    >>> theta = psi.from_mean_covariance(jnp.array([1.0, 0.0]), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> mean, covariance = psi.to_mean_covariance(theta)
    >>> covariance.round(4)
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """

    d: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "d", 1, "the dimension of x")

    @property
    def dim(self) -> int:
        """The dimension of the manifold, d + d(d+1)/2."""
        return self.d + self.d * (self.d + 1) // 2

    # --- coordinates -----------------------------------------------------------------------------

    def unpack(self, theta: Array) -> tuple[Array, Array]:
        """(Λμ, Λ) from θ: shapes (d,) and (d, d), the second exactly symmetric."""
        h, lower = theta[: self.d], -self._lower(theta[self.d :])
        return h, lower + lower.T  # the diagonal was halved, the rest was not doubled

    def pack(self, h: Array, precision: Array) -> Array:
        """θ from h = Λμ (d,) and Λ (d, d), of which the lower triangle is read."""
        rows, columns = np.tril_indices(self.d)
        factor = jnp.asarray(np.where(rows == columns, 0.5, 1.0), precision.dtype)
        return jnp.concatenate([h, -precision[rows, columns] * factor])

    def from_mean_covariance(self, mean: Array, covariance: Array) -> Array:
        """θ of the law with this mean (d,) and covariance (d, d); NaN unless it is definite.

        Of the covariance the lower triangle is read.
        """
        return self.from_mean_cholesky(mean, linalg.factor(self._square(covariance)))

    def from_mean_cholesky(self, mean: Array, low: Array) -> Array:
        """θ of the law with mean μ (d,) and covariance LLᵀ, L (d, d) lower triangular.

        Λ = L⁻ᵀL⁻¹ is formed from L⁻¹: no product LLᵀ has squared the condition number. NaN unless
        the diagonal is positive.
        """
        mean, low = jnp.asarray(mean), jnp.tril(self._square(low))
        if mean.shape != (self.d,):
            raise ValueError(f"Gaussian: mean has shape {mean.shape}. Wanted ({self.d},).")
        good = (jnp.diagonal(low) > 0).all()
        inverse = solve_triangular(
            jnp.where(good, low, jnp.nan), jnp.eye(self.d, dtype=low.dtype), lower=True
        )
        return self.pack(inverse.T @ (inverse @ mean), inverse.T @ inverse)

    def to_mean_covariance(self, theta: Array) -> tuple[Array, Array]:
        """(μ, Σ) of the law θ: shapes (d,) and (d, d); NaN outside the domain."""
        if self.d <= linalg.UNROLLED:
            mean, rows = _written_out_moments(*self._entries(theta))
            full = [[rows[max(i, j)][min(i, j)] for j in range(self.d)] for i in range(self.d)]
            return jnp.stack(mean), jnp.stack([jnp.stack(row) for row in full])
        mean, root = self._mean_root(theta)
        return mean, root.T @ root

    def to_mean_cholesky(self, theta: Array) -> tuple[Array, Array]:
        """(μ, L) with Σ = LLᵀ, L (d, d) lower triangular: what a sampler wants. NaN outside.

        From the factor of Λ taken in reversed order, Λ = UUᵀ with U upper triangular: L = U⁻ᵀ.
        """
        mean, _ = self._mean_root(theta)
        _, precision = self.unpack(theta)
        upper = linalg.factor(precision[::-1, ::-1])[::-1, ::-1]
        identity = jnp.eye(self.d, dtype=theta.dtype)
        return mean, solve_triangular(upper, identity, lower=False).T

    def _lower(self, entries: Array) -> Array:
        rows, columns = np.tril_indices(self.d)
        return jnp.zeros((self.d, self.d), entries.dtype).at[rows, columns].set(entries)

    def _entries(self, theta: Array) -> tuple[list[Array], _Rows]:
        """Λμ and the lower triangle of Λ, number by number."""
        return list(theta[: self.d]), _rows(
            [
                -2 * t if i == j else -t
                for t, i, j in zip(theta[self.d :], *self._places, strict=True)
            ]
        )

    @property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(self.d)

    def _square(self, matrix: Array) -> Array:
        matrix = jnp.asarray(matrix)
        if matrix.shape != (self.d, self.d):
            raise ValueError(
                f"Gaussian: a matrix has shape {matrix.shape}. Wanted {(self.d, self.d)}."
            )
        return matrix

    def _mean_root(self, theta: Array) -> tuple[Array, Array]:
        """μ, and L⁻¹ for Λ = LLᵀ, so that Σ = L⁻ᵀL⁻¹."""
        if self.d <= linalg.UNROLLED:
            h, precision = self._entries(theta)
            rows = _inverse_factor(_factor(precision))
            zero = jnp.zeros((), theta.dtype)
            full = [jnp.stack(row + [zero] * (self.d - len(row))) for row in rows]
            return jnp.stack(_through(rows, h)), jnp.stack(full)
        h, precision = self.unpack(theta)
        low = linalg.factor(precision)
        root = solve_triangular(low, jnp.eye(self.d, dtype=theta.dtype), lower=True)
        return linalg.factor_solve(low, h), root

    # --- the potential ---------------------------------------------------------------------------

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar; NaN outside the domain."""
        h, precision = self.unpack(theta)
        low = linalg.factor(precision)
        white = solve_triangular(low, h, lower=True)  # |L⁻¹Λμ|² = μᵀΛμ
        return 0.5 * (white @ white - linalg.logdet_factor(low) + self.d * math.log(2 * math.pi))

    def in_domain(self, theta: Array) -> Array:
        """Is θ finite and Λ positive definite, pivot by pivot?"""
        if self.d <= linalg.UNROLLED:
            pivots = jnp.stack([row[-1] for row in _factor(self._entries(theta)[1])])
            return jnp.isfinite(theta).all() & ((pivots > 0) & (pivots < jnp.inf)).all()
        _, precision = self.unpack(theta)
        return jnp.isfinite(theta).all() & jnp.isfinite(linalg.factor(precision)).all()

    def starting_point(self, dtype: Any) -> Array:
        """The standard normal law."""
        return self.pack(jnp.zeros(self.d, dtype), jnp.eye(self.d, dtype=dtype))

    def to_eta(self, theta: Array) -> Array:
        """η = (μ; Σ + μμᵀ, its lower triangle by rows), shape (n,)."""
        if self.d <= linalg.UNROLLED:
            m, covariance = _written_out_moments(*self._entries(theta))
            second = [
                s + m[i] * m[j] for i, row in enumerate(covariance) for j, s in enumerate(row)
            ]
            return jnp.stack(m + second)
        mean, covariance = self.to_mean_covariance(theta)
        rows, columns = np.tril_indices(self.d)
        return jnp.concatenate([mean, (covariance + jnp.outer(mean, mean))[rows, columns]])

    def to_theta(self, eta: Array) -> Array:
        """θ of the law with these moments, shape (n,); NaN where Σ is not positive definite."""
        if self.d <= linalg.UNROLLED:
            m, second = list(eta[: self.d]), _rows(list(eta[self.d :]))
            covariance = [[s - m[i] * m[j] for j, s in enumerate(r)] for i, r in enumerate(second)]
            root = _inverse_factor(_factor(covariance))
            low = _gram(root)
            entries = [-x / 2 if i == j else -x for i, r in enumerate(low) for j, x in enumerate(r)]
            return jnp.stack(_through(root, m) + entries)
        return self.from_mean_covariance(*self._moments(eta))

    def conjugate(self, eta: Array) -> Array:
        """φ(η) = −½ log det Σ − ½ d log 2πe, minus the entropy; NaN where Σ is not definite."""
        _, covariance = self._moments(eta)
        logdet = linalg.logdet_factor(linalg.factor(covariance))
        return -0.5 * (logdet + self.d * (math.log(2 * math.pi) + 1))

    def _moments(self, eta: Array) -> tuple[Array, Array]:
        mean, second = eta[: self.d], self._lower(eta[self.d :])
        return mean, second - jnp.tril(jnp.outer(mean, mean))

    def hessian(self, theta: Array) -> "NormalMetric":
        """The covariance of T, in closed form; see `NormalMetric`."""
        mean, root = self._mean_root(theta)
        return NormalMetric(mean, root)

    def curvature(self, theta: Array, v: Array) -> Array:
        """vᵀ∇²ψ(θ)v = |L⁻¹(ḣ − Λ̇μ)|² + ½‖L⁻¹Λ̇L⁻ᵀ‖² for v = (ḣ, Λ̇) and Λ = LLᵀ.

        The movement of the mean in its own metric, plus that of the precision: two sums of squares.
        """
        mean, root = self._mean_root(theta)
        h_dot, precision_dot = self.unpack(v)
        white = root @ (h_dot - precision_dot @ mean)
        turned = root @ precision_dot @ root.T
        return white @ white + 0.5 * (turned * turned).sum()

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL(base ‖ θ) = ½|C⁻¹L⁻¹w|² + ½ (tr M − log det(I + M)), a sum of nonnegative terms.

        Λ′ = LLᵀ is the base's precision, w = Δh − ΔΛμ′, M = L⁻¹ΔΛL⁻ᵀ and I + M = CCᵀ. The second is
        `log_det_excess`, for which I + M is L⁻¹ΛL⁻ᵀ where M is large.
        """
        if self.d <= linalg.UNROLLED:
            h, precision = self._entries(base)
            low, (h_gap, gap) = _factor(precision), self._entries(theta - base)
            mean = _backward(low, _forward(low, h))
            m, whole = (_congruent(low, x) for x in (gap, self._entries(theta)[1]))
            spread, low_gap = _log_det_excess_written_out(m, whole)
            moved = [
                x - sum((gap[max(i, j)][min(i, j)] * y for j, y in enumerate(mean)), start=0.0)
                for i, x in enumerate(h_gap)
            ]
            white = _forward(low_gap, _forward(low, moved))
            return 0.5 * (sum(x * x for x in white) + spread)
        mean, root = self._mean_root(base)
        h_gap, gap = self.unpack(theta - base)
        m = root @ gap @ root.T
        spread, low = linalg.log_det_excess(m, root @ self.unpack(theta)[1] @ root.T)
        white = solve_triangular(low, root @ (h_gap - gap @ mean), lower=True)
        return 0.5 * (white @ white + spread)

    # --- laws ------------------------------------------------------------------------------------

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(d,)."""
        return (self.d,)

    def statistic(self, x: Array) -> Array:
        """(x, the products xᵢxⱼ for i ≥ j by rows), shape (n,)."""
        rows, columns = np.tril_indices(self.d)
        return jnp.concatenate([x, x[rows] * x[columns]])

    def log_base(self, x: Array) -> Array:
        """0 on ℝᵈ."""
        return on_support(x.sum(), jnp.isfinite(x).all(), jnp.zeros((), x.dtype))

    def mean_log_base(self, theta: Array) -> Array:
        """0."""
        return jnp.zeros((), theta.dtype)

    def log_density(self, theta: Array, x: Array) -> Array:
        """−½|Lᵀ(x − μ)|² + ½ log det Λ − ½ d log 2π for Λ = LLᵀ."""
        h, precision = self.unpack(theta)
        low = linalg.factor(precision)
        white = low.T @ (x - linalg.factor_solve(low, h))
        return 0.5 * (linalg.logdet_factor(low) - white @ white - self.d * math.log(2 * math.pi))

    def entropy(self, theta: Array) -> Array:
        """½ d log 2πe − ½ log det Λ."""
        _, precision = self.unpack(theta)
        logdet = linalg.logdet_factor(linalg.factor(precision))
        return 0.5 * (self.d * (math.log(2 * math.pi) + 1) - logdet)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """μ + Lz with Σ = LLᵀ."""
        mean, low = self.to_mean_cholesky(theta)
        return mean + jax.random.normal(key, (*shape, self.d), theta.dtype) @ low.T

    def prior(self) -> NormalWishart:
        """Laws of (μ, Λ)."""
        return NormalWishart(self.d)

    def law_of(self, parameter: Array) -> Array:
        """θ at (μ, Λ)."""
        return self.pack(parameter[1:] @ parameter[0], parameter[1:])

    def prior_step(self, weight: Array, total: Array) -> Array:
        """(n/2; −½ Σ xᵢxⱼ, twice that off the diagonal; Σ x; −n/2)."""
        rows, columns = np.tril_indices(self.d)
        factor = jnp.asarray(np.where(rows == columns, -0.5, -1.0), total.dtype)
        half = (weight / 2)[None]
        return jnp.concatenate([half, total[self.d :] * factor, total[: self.d], -half])

    def prior_level(self) -> float:
        """−½ d log 2π."""
        return -0.5 * self.d * math.log(2 * math.pi)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ (d,) and `covariance` Σ (d, d)."""
        mean, covariance = self.to_mean_covariance(theta)
        return {"mean": mean, "covariance": covariance}

    def from_usual(self, mean: Array, covariance: Array) -> Array:
        """As `from_mean_covariance`."""
        return self.from_mean_covariance(mean, covariance)


@register
@dataclasses.dataclass(frozen=True)
class NormalMetric:
    """The metric of normal laws on ℝᵈ in the coordinates of `Gaussian`, an operator; see `operators`.

    With Σ = RᵀR and a vector v = (ḣ, Λ̇) it is made of u = R(ḣ − Λ̇μ) and X = RΛ̇Rᵀ,

        vᵀGv = |u|² + ½‖X‖²,    Gv = (μ̇; Σ̇ + μ̇μᵀ + μμ̇ᵀ) with μ̇ = Rᵀu, Σ̇ = −RᵀXR,
        log det G = (d + 2) log det Σ + d log 2,

    and G⁻¹ goes the same way back: products and solves cost O(d³), where the matrix has d⁴ entries.

    Attributes:
      mean: μ, shape (d,).
      lead: R, shape (d, d), lower triangular: the inverse of the Cholesky factor of Λ.
    """

    mean: Array
    lead: Array

    @property
    def _laws(self) -> Gaussian:
        return Gaussian(self.mean.shape[-1])

    @property
    def dim(self) -> int:
        """d + d(d+1)/2."""
        return self._laws.dim

    def _covector(self, first: Array, second: Array) -> Array:
        return jnp.concatenate([first, second[self._laws._places]])

    def apply(self, v: Array) -> Array:
        """Gv, from the movement of the mean and that of the covariance."""
        h, precision = self._laws.unpack(v)
        moved = self.lead.T @ (self.lead @ (h - precision @ self.mean))
        turned = self.lead @ precision @ self.lead.T
        across = jnp.outer(moved, self.mean)
        return self._covector(moved, across + across.T - self.lead.T @ turned @ self.lead)

    def solve(self, w: Array) -> Array:
        """G⁻¹w: Λ̇ = −ΛΣ̇Λ and ḣ = Λ̇μ + Λμ̇."""
        laws, root = self._laws, self._positive()
        moved, second = w[: laws.d], laws._lower(w[laws.d :])
        across = jnp.outer(moved, self.mean)
        changed = second + jnp.tril(second, -1).T - across - across.T

        def lowered(x):  # Λx
            y = solve_triangular(root, x, lower=True, trans=1)
            return solve_triangular(root, y, lower=True)

        half = lowered(lowered(changed).T)
        precision = -(half + half.T) / 2
        return laws.pack(precision @ self.mean + lowered(moved), precision)

    def spread(self, v: Array) -> Array:
        """As `apply`, all numbers by their sizes: a little more than |G||v|."""
        h, precision = (jnp.abs(x) for x in self._laws.unpack(v))
        mean, lead = jnp.abs(self.mean), jnp.abs(self.lead)
        covariance = lead.T @ lead
        moved = covariance @ (h + precision @ mean)
        across = jnp.outer(moved, mean)
        return self._covector(moved, across + across.T + covariance @ precision @ covariance)

    def logdet(self) -> Array:
        """(d + 2) log det Σ + d log 2."""
        d = self.mean.shape[-1]
        return (d + 2) * linalg.logdet_factor(self._positive()) + d * math.log(2)

    def root(self, z: Array) -> Array:
        """Sz for the S whose transpose is v ↦ (u, Xᵢᵢ/√2, Xᵢⱼ)."""
        laws, lead = self._laws, self._positive()
        first, second = lead.T @ z[: laws.d], laws._lower(z[laws.d :])
        diagonal = jnp.diag(jnp.diagonal(second))
        weights = second + second.T + (math.sqrt(2) - 2) * diagonal
        across = jnp.outer(first, self.mean)
        return self._covector(first, across + across.T - lead.T @ weights @ lead)

    def diagonal(self) -> Array:
        """Σᵢᵢ, and ΣᵢᵢΣⱼⱼ + Σᵢⱼ² + the quadratic form of Σ at (μⱼ, μᵢ)."""
        covariance = self.lead.T @ self.lead
        own, across = jnp.diagonal(covariance), jnp.outer(self.mean, self.mean)
        one = jnp.outer(own, own) + covariance**2
        two = jnp.outer(self.mean**2, own)
        return self._covector(own, one + two + two.T + 2 * across * covariance)

    def dense(self) -> Array:
        """The matrix: Σ; Σᵢₖμⱼ + Σⱼₖμᵢ; Σᵢₖ(Σⱼₗ + μⱼμₗ) + μᵢμₖΣⱼₗ and the same with k and l exchanged."""
        rows, columns = self._laws._places
        covariance, across = self.lead.T @ self.lead, jnp.outer(self.mean, self.mean)
        raw = covariance + across

        def at(matrix, i, j):
            return matrix[i][:, j]

        third = at(covariance, np.arange(len(self.mean)), rows) * self.mean[columns]
        third = third + at(covariance, np.arange(len(self.mean)), columns) * self.mean[rows]
        fourth = at(covariance, rows, rows) * at(raw, columns, columns)
        fourth = fourth + at(across, rows, rows) * at(covariance, columns, columns)
        fourth = fourth + at(covariance, rows, columns) * at(raw, columns, rows)
        fourth = fourth + at(across, rows, columns) * at(covariance, columns, rows)
        matrix = jnp.block([[covariance, third], [third.T, fourth]])
        # both triangles from one: written out twice, they might be rounded differently
        places = np.indices(matrix.shape)
        return matrix[places.max(0), places.min(0)]

    def _positive(self) -> Array:
        good = (jnp.diagonal(self.lead) > 0).all()
        return self.lead * jnp.where(good, 1.0, jnp.nan).astype(self.lead.dtype)


# A few small matrices at a time, number by number: a batch of them is then a few long loops. Quotients
# stand where reciprocals would do: XLA computes a quotient once, and a product as often as it is used.


def _rows(entries: list[Array]) -> _Rows:
    rows, start = [], 0
    while start < len(entries):
        rows.append(entries[start : start + len(rows) + 1])
        start += len(rows)
    return rows


def _factor(a: _Rows) -> _Rows:
    """The Cholesky factor; NaN or ∞ in the last row unless all pivots are positive and finite."""
    low: _Rows = []
    for i, line in enumerate(a):
        row: list[Array] = []
        for j, entry in enumerate(line[:-1]):
            for k in range(j):
                entry = entry - row[k] * low[j][k]
            row.append(entry / low[j][j])
        square = line[i]
        for x in row:
            square = square - x * x
        low.append([*row, jnp.sqrt(square)])
    return low


def _inverse_factor(low: _Rows) -> _Rows:
    """L⁻¹, with NaN in its last row unless all pivots are positive and finite."""
    pivots = jnp.stack([row[-1] for row in low])
    good = ((pivots > 0) & (pivots < jnp.inf)).all()
    mark = jnp.where(good, 1.0, jnp.nan).astype(pivots.dtype)
    rows: _Rows = []
    for i, line in enumerate(low):
        row: list[Array] = []
        one = mark if i == len(low) - 1 else jnp.ones_like(mark)
        for j in range(i):
            entry = line[j] * rows[j][j]
            for k in range(j + 1, i):
                entry = entry + line[k] * rows[k][j]
            row.append(-one * entry / line[i])
        rows.append([*row, one / line[i]])
    return rows


def _forward(low: _Rows, x: list[Array]) -> list[Array]:
    """L⁻¹x, or its first entries."""
    found: list[Array] = []
    for row, entry in zip(low, x, strict=False):
        for k, y in enumerate(found):
            entry = entry - row[k] * y
        found.append(entry / row[-1])
    return found


def _backward(low: _Rows, x: list[Array]) -> list[Array]:
    """L⁻ᵀx."""
    found: list[Array] = []
    for i in reversed(range(len(low))):
        entry = x[i]
        for k, y in enumerate(found):
            entry = entry - low[len(low) - 1 - k][i] * y
        found.append(entry / low[i][i])
    return found[::-1]


def _congruent(low: _Rows, a: _Rows) -> _Rows:
    """The lower triangle of L⁻¹AL⁻ᵀ."""
    d = len(low)
    half = [_forward(low, [a[max(i, j)][min(i, j)] for i in range(d)]) for j in range(d)]
    return [_forward(low, [half[k][i] for k in range(i + 1)]) for i in range(d)]


def _log_det_excess_written_out(m: _Rows, whole: _Rows) -> tuple[Array, _Rows]:
    """As `log_det_excess`."""
    size = jnp.abs(jnp.stack([x for row in m for x in row])).max()
    near, d = size < 0.25, len(m)
    eye = [[float(i == j) for j in range(i + 1)] for i in range(d)]
    low = _factor(
        [
            [jnp.where(near, e + x, y) for e, x, y in zip(*rows, strict=True)]
            for rows in zip(eye, m, whole, strict=True)
        ]
    )
    zero = jnp.zeros_like(size)
    below = jnp.stack([sum((x * x for x in row[:-1]), start=zero) for row in low])
    pivots = jnp.stack([row[-1] for row in low]) ** 2
    x = jnp.where(near, jnp.stack([row[-1] for row in m]) - below, 0.0)
    return below.sum() + _pivots_excess(near, x, pivots), low


def _pivots_excess(near: Array, x: Array, pivots: Array) -> Array:
    """Σ (xᵢ − log(1 + xᵢ)) for the pivots 1 + xᵢ, of which x is known if they are near 1."""
    # In terms of (1+u) log(1+u) − u, with 1+u = 1/(1+x).
    excess = (1 + x) * _numerics.log1p_excess(-x / (1 + x))
    far = pivots - 1 - jnp.log(pivots)
    return jnp.where(near, excess, jnp.maximum(far, 0.0)).sum()


def _gram(root: _Rows) -> _Rows:
    """RᵀR."""
    d = len(root)
    terms = [
        [[root[k][i] * root[k][j] for k in range(i, d)] for j in range(i + 1)] for i in range(d)
    ]
    return [[sum(t[1:], start=t[0]) for t in line] for line in terms]


def _through(root: _Rows, x: list[Array]) -> list[Array]:
    """RᵀRx."""
    white = [
        sum((r * y for r, y in zip(row[1:], x[1:], strict=False)), start=row[0] * x[0])
        for row in root
    ]
    d = len(root)
    return [
        sum((root[k][i] * white[k] for k in range(i + 1, d)), start=root[i][i] * white[i])
        for i in range(d)
    ]


def _written_out_moments(h: list[Array], precision: _Rows) -> tuple[list[Array], _Rows]:
    """μ and the lower triangle of Σ."""
    root = _inverse_factor(_factor(precision))
    return _through(root, h), _gram(root)
