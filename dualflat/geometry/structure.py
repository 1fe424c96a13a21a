"""The converse: from (g, ∇, ∇*) in any chart, or from a divergence, back to (θ, η, ψ, φ).

A `DualStructure` gives the metric and the two connections as functions of coordinates x that need
not be flat for anything. `flatness` says whether it is dually flat, and if not, which condition
fails, where and by how much. If it is, `recover` builds what the lecture's three lemmas promise:

    lemma 1    θ and η, affine coordinates of ∇ and ∇*, with g(∂ᵢ, ∂ʲ) = δᵢʲ;
    lemma 2    gᵢⱼ = ∂ηᵢ/∂θʲ and gⁱʲ = ∂θⁱ/∂ηⱼ;
    lemma 3    ψ and φ with ηᵢ = ∂ᵢψ(θ), θⁱ = ∂ⁱφ(η) and ψ + φ − θⁱηᵢ = 0.

All of it comes from one linear equation along a straight ray of the chart: a covector that ∇ keeps
parallel obeys ω̇ⱼ = Γᵢⱼᵏẋⁱωₖ. The parallel coframe is dθ, its integral θ, and ψ is ∫ η·dθ.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.tree_util import Partial

from dualflat.geometry import _ray, linalg
from dualflat.geometry._ray import Ray, as_turning
from dualflat.geometry._tree import as_tree, compiled, register
from dualflat.geometry.connection import (
    Connection,
    DualStructure,
    curvature_tensor,
    duality_defect,
    torsion,
    torsion_defect,
)
from dualflat.geometry.potential import checked_points
from dualflat.geometry.solve import Status

Divergence = Callable[[Array, Array], Array]


# --- reports ---------------------------------------------------------------------------------


@register
@dataclasses.dataclass(frozen=True)
class Report:
    """Which conditions hold at a point, and for those that do not: which component, by how much.

    Data inside `jit` and `vmap`; on the host `checked()` turns a failure into an error, and
    `print` shows one line a condition, of a batch the worst point.

    Attributes:
      residual: shape (..., c). By how much each condition fails, relative to a natural size.
      tolerance: shape (..., c), what rounding may do.
      component: shape (..., c, 4), int32: the indices of the worst component, filled up with −1.
      point: shape (..., n), the coordinates x.
      conditions: the names of the c conditions.
    """

    residual: Array
    tolerance: Array
    component: Array
    point: Array
    conditions: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    @property
    def holds(self) -> Array:
        """Which conditions hold, bool (..., c). A residual that is NaN does not."""
        return self.residual <= self.tolerance

    def checked(self) -> "Report":
        """Return the report itself if every condition holds everywhere, or say what does not.

        Raises:
          RuntimeError: if a condition fails at some point of the batch.
          TypeError: inside `jit`, where there is no value to look at yet.
        """
        if isinstance(self.residual, Tracer):
            raise TypeError(
                "Report.checked() reads values, which do not exist inside jit or vmap. There, read"
                " `holds`, and call checked() outside."
            )
        if not bool(np.asarray(self.holds).all()):
            raise RuntimeError(str(self))
        return self

    def __str__(self) -> str:
        """A line for each condition: its residual and, where it fails, the worst point."""
        if isinstance(self.residual, Tracer):
            return repr(self)
        count = len(self.conditions)
        residual, tolerance = (
            np.asarray(a, np.float64).reshape(-1, count) for a in (self.residual, self.tolerance)
        )
        batch = self.residual.shape[:-1]
        component = np.asarray(self.component).reshape(-1, count, 4)
        point = np.asarray(self.point).reshape(len(residual), -1)
        excess = np.where(np.isnan(residual), np.inf, residual - tolerance)
        width = max(map(len, self.conditions))
        lines = []
        for k, name in enumerate(self.conditions):
            worst = int(np.argmax(excess[:, k]))
            failed = int((excess[:, k] > 0).sum())
            line = f"  {name:{width}}  {'FAILS' if failed else 'holds'}"
            line += f"  {residual[worst, k]:8.1e} of {tolerance[worst, k]:.0e}"
            if failed:
                indices = tuple(int(i) for i in component[worst, k] if i >= 0)
                where = (
                    f" point {tuple(map(int, np.unravel_index(worst, batch)))}," if batch else ""
                )
                line += f" at{where} x = {point[worst].tolist()}, component {indices}"
                line += f"; in {failed} of {len(residual)} points" if batch else ""
            lines.append(line)
        broken = int((excess > 0).any(axis=0).sum())
        verdict = f"{broken} of {count} conditions fail" if broken else "every condition holds"
        return "\n".join([f"{verdict}:", *lines])


class _Row(NamedTuple):
    name: str
    residual: Array
    tolerance: Array
    component: Array


def _row(name: str, scaled: Array, tolerance: Array) -> _Row:
    """The worst component of an array of residuals; NaN is the worst of all."""
    size = jnp.abs(scaled.astype(tolerance.dtype)).ravel()
    worst = jnp.argmax(jnp.where(jnp.isnan(size), jnp.inf, size))
    indices = [i.astype(jnp.int32) for i in jnp.unravel_index(worst, scaled.shape)]
    unused = [jnp.full((), -1, jnp.int32)] * (4 - scaled.ndim)
    return _Row(name, size[worst], tolerance, jnp.stack(indices + unused))


def _as_report(x: Array, rows: list[_Row]) -> Report:
    residual, tolerance = (
        jnp.stack([jnp.asarray(a, x.dtype) for a in column])
        for column in ([r.residual for r in rows], [r.tolerance for r in rows])
    )
    component = jnp.stack([r.component for r in rows])
    return Report(residual, tolerance, component, x, tuple(r.name for r in rows))


def flatness(structure: DualStructure, x: Array) -> Report:
    """Is (g, ∇, ∇*) dually flat at x? The conditions of the lecture, one by one.

        gᵢⱼ = gⱼᵢ,    g > 0,    ∂ₖgᵢⱼ = Γₖᵢ,ⱼ + Γ*ₖⱼ,ᵢ (5),    T + T* = 0 (6),
        T = 0,    T* = 0,    R = 0,    R* = 0.

    By theorem 1 the last four are two, but only if the first four hold; all are looked at.

    Residuals do not depend on the units of the coordinates: every index is measured in the length
    √gᵢᵢ of its ∂ᵢ. They are relative to the greatest of what is added up, Γ, Γ* and ∂g, or ∂Γ and
    ΓΓ, and not to less than ε^¼: where all of these are rounding there is nothing to compare with.
    Tolerances are a multiple of n·ε times the condition number of the metric, scaled to unit
    diagonal. That of `g > 0` is below 0: its residual is −λ, λ the least eigenvalue of that matrix.

    Args:
      structure: the metric and the connections, functions of x. Derivatives are taken of each.
      x: shape (n,). For several points use `jax.vmap`; the report of a batch tells the worst.

    Returns:
      A `Report`. What is not finite does not hold.

    Raises:
      ValueError: for shapes that do not match.

    >>> from dualflat.geometry.connection import levi_civita
    >>> sphere = lambda x: jnp.diag(jnp.array([1.0, jnp.sin(x[0]) ** 2]))
    >>> twice = DualStructure(sphere, levi_civita(sphere), levi_civita(sphere))
    >>> report = flatness(twice, jnp.array([1.0, 0.0]))
    >>> [name for name, holds in zip(report.conditions, report.holds) if not holds]
    ['R = 0', 'R* = 0']
    """
    (x,) = checked_points(structure.metric, "flatness", x=x)
    return _flatness_compiled(_checked(structure, "flatness", x), x)


@compiled
def _flatness_compiled(structure: DualStructure, x: Array) -> Report:
    return _as_report(x, _flatness(structure, x))


def _flatness(structure: DualStructure, x: Array) -> list[_Row]:
    n, eps = x.shape[0], float(jnp.finfo(x.dtype).eps)
    fields = structure.metric, structure.primal, structure.dual
    (g, g_slope), *gammas = (_jet(field, x) for field in fields)
    diagonal = jnp.abs(jnp.diagonal(g))
    unit = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))  # the length of ∂ᵢ
    two = 1 / (unit[:, None] * unit)
    three = two[:, :, None] / unit
    mixed = two[:, :, None] * unit  # for [i, j, k] with its last index above
    mixed_four = three[..., None] * unit

    values, vectors = jnp.linalg.eigh((g + g.T) / 2 * two)
    condition = jnp.where(values[0] > eps, values[-1] / values[0], 1 / eps)
    softest = jnp.abs(vectors[:, 0]) >= jnp.abs(vectors[:, 0]).max()
    least = jnp.full((), eps**0.25, x.dtype)
    sizes = [g_slope * three, *(gamma * mixed for gamma, _ in gammas)]
    size = jnp.stack([least, *(jnp.abs(s).max() for s in sizes)]).max()
    slopes = [jnp.moveaxis(slope, 3, 0) * mixed_four for _, slope in gammas]
    size_two = jnp.stack([least, size**2, *(jnp.abs(s).max() for s in slopes)]).max()

    # All conditions are about values and first derivatives at x, so about these linear fields.
    linear = DualStructure(*(_linear(*jet, x) for jet in ((g, g_slope), *gammas)))
    pair = linear.primal, linear.dual
    tolerance = 50 * n * eps * condition
    rows = [
        _row("g symmetric", (g - g.T) * two, jnp.asarray(10 * n * eps)),
        _row("g > 0", softest, jnp.asarray(-4 * n * eps))._replace(residual=-values[0]),
        _row("(5) duality", duality_defect(linear, x) * three / size, tolerance),
        _row("(6) T + T* = 0", torsion_defect(linear, x) * mixed / size, tolerance),
    ]
    for star, connection in zip(("", "*"), pair, strict=True):
        rows.append(_row(f"T{star} = 0", torsion(connection, x) * mixed / size, tolerance))
    for star, connection in zip(("", "*"), pair, strict=True):
        bend = curvature_tensor(connection, x) * mixed_four / size_two
        rows.append(_row(f"R{star} = 0", bend, tolerance))
    return rows


def _jet(field: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """A field's value and its first derivatives, traced once."""
    slope, value = jax.jacfwd(lambda y: (field(y),) * 2, has_aux=True)(x)
    return value.astype(x.dtype), slope.astype(x.dtype)


def _linear(value: Array, slope: Array, x: Array) -> Callable[[Array], Array]:
    return lambda y: value + slope @ (y - x)


def _checked(structure: DualStructure, where: str, x: Array) -> DualStructure:
    """The structure as a pytree, once its three functions are known to give the right shapes."""
    n = x.shape[0]
    fields = dataclasses.fields(structure)
    parts = {field.name: as_tree(getattr(structure, field.name)) for field in fields}
    for name, part in parts.items():
        wanted = (n, n) if name == "metric" else (n, n, n)
        found = jax.eval_shape(part, x).shape
        if found != wanted:
            raise ValueError(
                f"{where}: {name} has shape {found} at a point of shape {x.shape}. Wanted {wanted}."
            )
    return DualStructure(**parts)


# --- lemma 1: affine coordinates -------------------------------------------------------------


@register
@dataclasses.dataclass(frozen=True)
class AffineCoordinates:
    """Coordinates x ↦ θ(x) in which a flat connection vanishes. See `affine_coordinates`.

    Attributes:
      turning: (x, u) ↦ Γᵢⱼᵏuⁱ, shape (n, n): what is left of the connection.
      origin: shape (n,), where the rays begin.
      value: shape (n,), θ at the origin.
      frame: shape (n, n), ∂θᵃ/∂xʲ at the origin.
      units: shape (n,), lengths of the ∂ⱼ; they decide only when a ray counts as resolved.
    """

    turning: Callable[[Array, Array], Array]
    origin: Array
    value: Array
    frame: Array
    units: Array

    def __call__(self, x: Array) -> Array:
        """θ(x), shape (n,); NaN where the ray from the origin does not reach."""
        return self.value + self.frame @ self._along(x).value[0]

    def jacobian(self, x: Array) -> Array:
        """∂θᵃ/∂xʲ at x, shape (n, n): the coframe that the connection keeps parallel."""
        return self.frame @ self._along(x).frame[0]

    def status(self, x: Array) -> Array:
        """Why θ(x) is NaN, int32, a `solve.Status`.

        NONFINITE: the ray leaves the chart, Γ is not finite there. MAX_STEPS: it runs into a
        singularity of Γ, or is too long to be resolved.
        """
        return self._along(x).status

    def _along(self, x: Array) -> Ray:
        x, origin = checked_points(self, "AffineCoordinates", x=x, origin=self.origin)
        return _ray.along((self.turning,), origin, x, self.units)


def affine_coordinates(
    connection: Connection,
    origin: Array,
    *,
    frame: Array | None = None,
    value: Array | None = None,
    units: Array | None = None,
) -> AffineCoordinates:
    """The coordinates θ(x) of a flat connection in which Γ = 0, determined by θ and ∂θ at a point.

        ∂ᵢ∂ⱼθ = Γᵢⱼᵏ∂ₖθ.

    Along the ray x(t) = o + t(x − o) the coframe E = ∂θ/∂x obeys the linear equation
    Ėᵃⱼ = Γᵢⱼᵏẋⁱ Eᵃₖ, and θ = θ(o) + ∫ E ẋ dt. It is solved by Gauss-Legendre collocation of order
    16 on panels as long as the decay of their coefficients allows. Derivatives are not taken through
    the solver: dθ = E dx and dEᵃⱼ = ΓᵢⱼᵏEᵃₖ dxⁱ, at every order, forwards and backwards; those in
    the origin, frame and value, and in the parameters of a connection that is a pytree, are exact
    as well.

    Args:
      connection: x ↦ (n, n, n), flat and without torsion; not checked, see `flatness`. If it is
        not, θ depends on the path, and E is not its derivative.
      origin: shape (n,).
      frame: shape (n, n), ∂θᵃ/∂xʲ at the origin. Without it, the identity.
      value: shape (n,), θ at the origin. Without it, 0.
      units: shape (n,), positive: the lengths of the ∂ⱼ, if the coordinates differ much in scale.

    Returns:
      A callable pytree, for x in the neighbourhood that is star-shaped about the origin and in
      which Γ is finite; NaN beyond, see `AffineCoordinates.status`.

    Raises:
      ValueError: for shapes that do not match.

    >>> from dualflat.geometry.connection import levi_civita
    >>> polar = lambda x: jnp.diag(jnp.array([1.0, x[0] ** 2]))
    >>> plane = affine_coordinates(levi_civita(polar), jnp.array([1.0, 0.0]))
    >>> plane(jnp.array([2.0, jnp.pi / 6])).round(4)  # r cos φ − 1, r sin φ
    Array([0.7321, 1.    ], dtype=float32)
    """
    vectors = {"origin": origin, "value": value, "units": units}
    given = {name: vector for name, vector in vectors.items() if vector is not None}
    named = dict(zip(given, checked_points(connection, "affine_coordinates", **given), strict=True))
    origin = named["origin"]
    return AffineCoordinates(
        as_turning(connection, origin),
        origin,
        named.get("value", jnp.zeros_like(origin)),
        _checked_frame("affine_coordinates", frame, origin),
        jax.lax.stop_gradient(named.get("units", jnp.ones_like(origin))),
    )


def _checked_frame(where: str, frame: Array | None, origin: Array) -> Array:
    n = origin.shape[0]
    if frame is None:
        return jnp.eye(n, dtype=origin.dtype)
    frame = jnp.asarray(frame)
    if frame.shape != (n, n):
        raise ValueError(f"{where}: frame has shape {frame.shape}. Wanted {(n, n)}, ∂θᵃ/∂xʲ.")
    return frame.astype(origin.dtype)


# --- lemmas 2 and 3: the potential -----------------------------------------------------------


class Point(NamedTuple):
    """All that is known of one point of a recovered manifold; NaN where no ray reaches it.

    `status` is a `solve.Status`. NONFINITE: the ray leaves the chart. MAX_STEPS: it runs into a
    singularity of Γ, or is too long to be resolved. STALLED: no x was found for this θ.
    """

    x: Array  # (n,)
    theta: Array  # (n,)
    eta: Array  # (n,)
    psi: Array  # ()
    phi: Array  # ()
    frame: Array  # (n, n), ∂θᵃ/∂xʲ
    dual_frame: Array  # (n, n), ∂ηₐ/∂xʲ
    status: Array  # (), int32
    steps: Array  # (), int32, panels or steps of Newton


@register
@dataclasses.dataclass(frozen=True)
class DuallyFlat:
    """What a dually flat (g, ∇, ∇*) was made from: θ, η, ψ and φ as functions of x. See `recover`.

    `theta(x)` and `eta(x)` are the affine coordinates; `point(x)` has everything at the price of
    one ray.

    Attributes:
      structure: the metric and the connections in the chart x.
      theta, eta: the dual affine coordinates of lemma 1, to be called.
      level: shape (), ψ at the origin.
      report: what `flatness` says at the origin. If not all of it holds, all else is NaN.
    """

    structure: DualStructure
    theta: AffineCoordinates
    eta: AffineCoordinates
    level: Array
    report: Report

    def point(self, x: Array) -> Point:
        """θ, η, ψ, φ and both frames at x, shape (n,)."""
        x, origin = checked_points(
            self.potential, "DuallyFlat.point", x=x, origin=self.theta.origin
        )
        return self._point(_ray.along(self._turns, origin, x, self.theta.units))

    def locate(self, theta: Array) -> Point:
        """The point with these coordinates θ, shape (n,), by Newton in x; dx = E⁻¹dθ.

        NaN where there is none, or none that a ray from the origin reaches.
        """
        theta, start = checked_points(
            self.potential, "DuallyFlat.locate", theta=theta, start=self.theta.value
        )
        target = jnp.linalg.solve(self.theta.frame, theta - start)
        return self._point(_ray.locate(self._turns, self.theta.origin, target, self._pairing))

    def psi(self, x: Array) -> Array:
        """ψ as a function of x, shape (): ψ(o) + ⟨η(o), θ − θ(o)⟩ + ∫ (η − η(o))·dθ."""
        return self.point(x).psi

    def phi(self, x: Array) -> Array:
        """φ as a function of x, shape (), by its own integral ∫ θ·dη; φ(o) = ⟨θ, η⟩ − ψ at o."""
        return self.point(x).phi

    def to_x(self, theta: Array) -> Array:
        """The x with θ(x) = θ, shape (n,). See `locate`."""
        return self.locate(theta).x

    def swapped(self) -> "DuallyFlat":
        """The dual manifold: θ and η, ψ and φ, ∇ and ∇* change places."""
        return DuallyFlat(
            self.structure.swapped(), self.eta, self.theta, self._dual_level, self.report
        )

    @property
    def potential(self) -> "RecoveredPotential":
        """ψ as a function of θ, with all that a potential may know."""
        return RecoveredPotential(self)

    @property
    def _turns(self) -> tuple[Callable, Callable]:
        return self.theta.turning, self.eta.turning

    @property
    def _pairing(self) -> Array:
        return self.theta.frame.T @ self.eta.frame  # g at the origin

    @property
    def _dual_level(self) -> Array:
        return self.theta.value @ self.eta.value - self.level

    def _point(self, ray: Ray) -> Point:
        theta, eta = self.theta, self.eta
        rise, dual_rise = theta.frame @ ray.value[0], eta.frame @ ray.value[1]
        integral = jnp.einsum("ab,cab->c", self._pairing, ray.moment)
        return Point(
            x=ray.x,
            theta=theta.value + rise,
            eta=eta.value + dual_rise,
            psi=self.level + eta.value @ rise + integral[0],
            phi=self._dual_level + theta.value @ dual_rise + integral[1],
            frame=theta.frame @ ray.frame[0],
            dual_frame=eta.frame @ ray.frame[1],
            status=ray.status,
            steps=ray.steps,
        )


@register
@dataclasses.dataclass(frozen=True)
class RecoveredPotential:
    """ψ(θ) of a recovered manifold: a potential like any other. See `recover`.

    Attributes:
      manifold: what was recovered.
    """

    manifold: DuallyFlat

    @property
    def dim(self) -> int:
        """The dimension of the manifold."""
        return self.manifold.theta.value.shape[0]

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar; NaN where no ray reaches."""
        return self.manifold.locate(theta).psi

    def in_domain(self, theta: Array) -> Array:
        """Is there an x with θ(x) = θ that a ray from the origin reaches?"""
        return self.manifold.locate(theta).status == Status.CONVERGED

    def starting_point(self, dtype: Any) -> Array:
        """θ at the origin."""
        return self.manifold.theta.value.astype(dtype)

    def to_eta(self, theta: Array) -> Array:
        """η = ∇ψ(θ), shape (n,)."""
        return self.manifold.locate(theta).eta

    def to_theta(self, eta: Array) -> Array:
        """The θ with ∇ψ(θ) = η, shape (n,); NaN where there is none."""
        return self.manifold.swapped().locate(eta).eta

    def conjugate(self, eta: Array) -> Array:
        """φ(η), a scalar; NaN where no ray reaches."""
        return self.manifold.swapped().locate(eta).psi


def recover(
    structure: DualStructure,
    origin: Array,
    *,
    frame: Array | None = None,
    theta: Array | None = None,
    eta: Array | None = None,
    level: Array | float = 0.0,
) -> DuallyFlat:
    """ψ from (g, ∇, ∇*): the manifold of a convex function, found again in whatever chart it is in.

    θ are affine coordinates of ∇ with the given frame E = ∂θ/∂x at the origin. Those of ∇* get the
    frame F that the lecture's constant matrix G stands for, EᵀF = g, so that g(∂ᵢ, ∂ʲ) = δᵢʲ there;
    and then everywhere, because parallel vectors keep their product. ψ = ∫ η·dθ along the ray from
    the origin. It is unique up to an affine change of θ and an affine function: `frame`, `theta`,
    `eta` and `level` choose one. By default θ = η = 0 and ψ = φ = 0 at the origin and ∂θ/∂x = I, so
    that ψ is the divergence from the origin, which no cancellation touches.

    Args:
      structure: (g, ∇, ∇*) as functions of x; its parameters are differentiated.
      origin: shape (n,), about which the region of interest is star-shaped in x.
      frame: shape (n, n), ∂θᵃ/∂xʲ at the origin.
      theta, eta: shape (n,), their values at the origin.
      level: shape (), ψ at the origin.

    Returns:
      A `DuallyFlat`: θ(x), η(x), ψ(x), φ(x), x(θ), and `potential`, ψ(θ) for the rest of the
      library. All NaN if `flatness` fails at the origin; its `report` says why. Elsewhere flatness
      is not checked: ask `flatness` or `examine` about more points.

    Raises:
      ValueError: for shapes that do not match.

    >>> from dualflat.geometry.connection import dual_structure
    >>> bare = lambda theta: jnp.logaddexp(0.0, theta).sum()  # Bernoulli; now hide θ = sinh x
    >>> manifold = recover(dual_structure(bare).in_chart(jnp.sinh), jnp.zeros(1))
    >>> print(f"{manifold.theta(jnp.ones(1))[0]:.4f} = {jnp.sinh(1.0):.4f}")
    1.1752 = 1.1752
    >>> theta = jnp.array([0.5])
    >>> up_to_affine = bare(theta) - bare(0 * theta) - 0.5 * theta.sum()
    >>> print(f"{manifold.potential(theta):.5f} = {up_to_affine:.5f}")
    0.03093 = 0.03093
    """
    vectors = {"origin": origin, "theta": theta, "eta": eta}
    given = {name: vector for name, vector in vectors.items() if vector is not None}
    named = dict(zip(given, checked_points(structure.metric, "recover", **given), strict=True))
    origin = named["origin"]
    structure = _checked(structure, "recover", origin)
    frame = _checked_frame("recover", frame, origin)
    report, frames, units = _normalised_compiled(structure, origin, frame)
    values = (named.get(name, jnp.zeros_like(origin)) for name in ("theta", "eta"))
    pair = structure.primal, structure.dual
    theta_of, eta_of = (
        AffineCoordinates(as_turning(connection, origin), origin, value, at, units)
        for connection, value, at in zip(pair, values, frames, strict=True)
    )
    return DuallyFlat(structure, theta_of, eta_of, jnp.asarray(level, origin.dtype), report)


@compiled
def _normalised_compiled(
    structure: DualStructure, origin: Array, frame: Array
) -> tuple[Report, tuple[Array, Array], Array]:
    """The report at the origin, frames E and F with EᵀF = g there, NaN if it fails, and units."""
    report = _as_report(origin, _flatness(*jax.lax.stop_gradient((structure, origin))))
    frame = jnp.where(report.holds.all(), frame, jnp.nan)  # no plausible numbers from a bad one
    g = structure.metric(origin).astype(origin.dtype)
    return report, (frame, jnp.linalg.solve(frame.T, (g + g.T) / 2)), _lengths(g)


def _lengths(g: Array) -> Array:
    """√gᵢᵢ, which only steer; no derivative passes."""
    return jax.lax.stop_gradient(jnp.sqrt(jnp.abs(jnp.diagonal(g))))


# --- what the lemmas say ---------------------------------------------------------------------


def biorthogonality_defect(manifold: DuallyFlat, x: Array) -> Array:
    """g(∂ᵢ, ∂ʲ) − δᵢʲ at x, (11): 0 by lemma 1, whose G is taken at the origin. Shape (n, n)."""
    return _biorthogonality(manifold.structure.metric(x), manifold.point(x))


def jacobian_defect(manifold: DuallyFlat, x: Array) -> Array:
    """∂ηᵢ/∂θʲ − gᵢⱼ, (12), and ∂θⁱ/∂ηⱼ − gⁱʲ, (13): 0 by lemma 2. Shape (2, n, n).

    In the coordinates θ and η, whose bases are the ∂ᵢ and ∂ʲ, each index in the length of its own.
    """
    return _jacobian(manifold.structure.metric(x), manifold.point(x))


def legendre_defect(manifold: DuallyFlat, x: Array) -> Array:
    """ψ + φ − θⁱηᵢ at x: 0 by lemma 3. Shape (), relative to the terms.

    ψ and φ are integrals of their own; only their constants were chosen to go together.
    """
    return _legendre(manifold.point(x))


def _biorthogonality(g: Array, point: Point) -> Array:
    left = jnp.linalg.solve(point.frame.T, g)  # g(∂ᵢ, ·)
    return jnp.linalg.solve(point.dual_frame.T, left.T).T - jnp.eye(g.shape[0], dtype=g.dtype)


def _jacobian(g: Array, point: Point) -> Array:
    def one(here, there):
        basis = jnp.linalg.inv(here)  # its columns are the ∂ᵢ
        inner = basis.T @ g @ basis
        unit = jnp.sqrt(jnp.diagonal(inner))
        return (there @ basis - inner) / (unit[:, None] * unit)

    return jnp.stack([one(point.frame, point.dual_frame), one(point.dual_frame, point.frame)])


def _legendre(point: Point) -> Array:
    products = point.theta * point.eta
    size = jnp.abs(point.psi) + jnp.abs(point.phi) + jnp.abs(products).sum()
    return (point.psi + point.phi - products.sum()) / jnp.where(size > 0, size, 1.0)


def examine(manifold: DuallyFlat, x: Array) -> Report:
    """`flatness` at x, and whether the three lemmas came true there.

    Tolerances of the lemmas are 100 times those of `flatness`, for what adds up along a ray.

    Args:
      manifold: from `recover`.
      x: shape (n,).

    Raises:
      ValueError: for shapes that do not match.
    """
    x, _ = checked_points(manifold.potential, "examine", x=x, origin=manifold.theta.origin)
    return _examine_compiled(manifold, x)


@compiled
def _examine_compiled(manifold: DuallyFlat, x: Array) -> Report:
    rows, g, point = (
        _flatness(manifold.structure, x),
        manifold.structure.metric(x),
        manifold.point(x),
    )
    tolerance = 100 * rows[-1].tolerance
    twelve, thirteen = _jacobian(g, point)
    rows += [
        _row("(11) g(∂ᵢ, ∂ʲ) = δᵢʲ", _biorthogonality(g, point), tolerance),
        _row("(12) gᵢⱼ = ∂ηᵢ/∂θʲ", twelve, tolerance),
        _row("(13) gⁱʲ = ∂θⁱ/∂ηⱼ", thirteen, tolerance),
        _row("ψ + φ − θⁱηᵢ = 0", _legendre(point), tolerance),
    ]
    return _as_report(x, rows)


# --- from a divergence -----------------------------------------------------------------------


def _eguchi_metric(divergence: Divergence, x: Array) -> Array:
    mixed = jax.jacfwd(jax.grad(divergence, argnums=1), argnums=0)(x, x)  # [j, i] = ∂ᵢ∂′ⱼD
    return -mixed.T


@register
@dataclasses.dataclass(frozen=True)
class EguchiConnection:
    """Γᵢⱼ,ₖ = −∂ᵢ∂ⱼ∂′ₖD at coincidence, or with the arguments exchanged. See `from_divergence`.

    Attributes:
      divergence: (x, x′) ↦ D, a pytree.
      dual: whether to exchange the arguments, which gives ∇*.
    """

    divergence: Divergence
    dual: bool = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Array) -> Array:
        """Γᵢⱼᵏ, shape (n, n, n)."""
        basis = jnp.eye(x.shape[0], dtype=x.dtype)
        along = jax.vmap(jax.vmap(self.contract, (None, None, 0)), (None, 0, None))
        return along(x, basis, basis)

    def contract(self, x: Array, u: Array, v: Array) -> Array:
        """Γᵢⱼᵏuⁱvʲ, shape (n,): −∂ᵤ∂ᵥ∂′D, raised."""
        divergence = self.divergence

        def slope(y):  # ∂′D, or ∂D if the arguments are exchanged
            return jax.grad(divergence, int(not self.dual))(*((x, y) if self.dual else (y, x)))

        def along_v(y):
            return jax.jvp(slope, (y,), (v,))[1]

        lowered = -jax.jvp(along_v, (x,), (u,))[1]
        return linalg.solve_pd(_eguchi_metric(divergence, x), lowered)


def from_divergence(divergence: Divergence) -> DualStructure:
    """(g, ∇, ∇*) of a divergence D(x, x′), from its derivatives where the points meet (Eguchi 1983).

        gᵢⱼ = −∂ᵢ∂′ⱼD,    Γᵢⱼ,ₖ = −∂ᵢ∂ⱼ∂′ₖD,    Γ*ᵢⱼ,ₖ = −∂′ᵢ∂′ⱼ∂ₖD    at x′ = x.

    The order is that of `bregman(psi, theta, base)`: with D(θ, θ′) = ψ(θ) − ψ(θ′) − ⟨θ − θ′, ∇ψ(θ′)⟩
    the first argument is differentiated twice and Γ = 0 in θ. For a family of laws that is
    KL(x′ ‖ x), with ∇ the e-connection; from KL(x ‖ x′) ∇ and ∇* come out exchanged.

    The pair is always dual, (5), and free of torsion. It is flat if D is a Bregman divergence in
    some coordinates, but not only then: see `bregman_report`.

    Args:
      divergence: (x, x′) ↦ D ≥ 0 for points of shape (n,), three times differentiable where they
        meet. A plain formula will do: only derivatives are taken, no differences.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> kl = lambda p, q: (q * jnp.log(q / p) - q + p).sum()  # KL(q ‖ p), measures on 2 outcomes
    >>> structure = from_divergence(kl)
    >>> structure.metric(jnp.array([0.5, 0.25])).diagonal()  # 1/p
    Array([2., 4.], dtype=float32)
    >>> structure.primal(jnp.array([0.5, 0.25]))[1, 1, 1]  # e-flat: Γ = −1/p, as θ = log p says
    Array(-4., dtype=float32)
    """
    tree = as_tree(divergence)
    return DualStructure(
        Partial(_eguchi_metric, tree), EguchiConnection(tree, False), EguchiConnection(tree, True)
    )


def canonical_divergence(structure: DualStructure, x: Array, base: Array) -> Array:
    """D(x, x′) = ψ(θ) + φ(η′) − ⟨θ, η′⟩ of a dually flat structure, without ψ.

        D = ∫ (η − η′)·dθ    along the ray from x′ to x,

    which needs no affine coordinates to begin with, depends on no choice of them, and has nothing
    to cancel.

    Args:
      structure: (g, ∇, ∇*); that it is dually flat is not checked.
      x, base: shape (n,), joined by a segment in the chart.

    Returns:
      shape (); NaN where the segment leaves the chart.
    """
    x, base = checked_points(structure.metric, "canonical_divergence", x=x, base=base)
    structure = _checked(structure, "canonical_divergence", base)
    turns = tuple(as_turning(connection, base) for connection in (structure.primal, structure.dual))
    g = structure.metric(base)
    return jnp.vdot(g, _ray.along(turns, base, x, _lengths(g)).moment[0])


def bregman_report(divergence: Divergence, x: Array, base: Array) -> Report:
    """Is D(x, x′) a Bregman divergence, in whatever coordinates? What fails, if not.

    First that it is a divergence: where the points meet, at the base, D and its first derivatives
    are 0. Then `flatness` of (g, ∇, ∇*) there. Then that D(x, x′) is the canonical divergence of
    that structure: D + |x − x′|⁴ has the same g, ∇ and ∇*, and is found out only here.

    Args:
      divergence: as in `from_divergence`.
      x, base: shape (n,), some distance apart.

    Returns:
      A `Report` about the base; the residual of the last condition is relative to D. Where it
      holds, `recover(from_divergence(D), base)` has the ψ that D comes from. Tolerances of what is
      read off D itself are √ε, because D may be a plain formula.

    >>> hellinger = lambda p, q: 2 * ((jnp.sqrt(p) - jnp.sqrt(q)) ** 2).sum()
    >>> x, base = jnp.array([0.5, 0.25]), jnp.array([0.1, 0.4])
    >>> report = bregman_report(hellinger, x, base)  # |z − z′|² with z = √(2p): Bregman
    >>> bool(report.holds.all())
    True
    """
    structure = from_divergence(divergence)
    x, base = checked_points(structure.metric, "bregman_report", x=x, base=base)
    structure = _checked(structure, "bregman_report", base)
    return _bregman_report_compiled(as_tree(divergence), structure, x, base)


@compiled
def _bregman_report_compiled(divergence, structure: DualStructure, x: Array, base: Array) -> Report:
    loose = jnp.asarray(float(jnp.finfo(x.dtype).eps) ** 0.5)
    unit = _lengths(structure.metric(base))
    value, slopes = jax.value_and_grad(divergence, argnums=(0, 1))(base, base)
    found, canonical = divergence(x, base), canonical_divergence(structure, x, base)
    size = jnp.maximum(jnp.abs(found), jnp.abs(canonical))
    gap = (found - canonical) / jnp.where(size > 0, size, 1.0)
    rows = [
        _row("D = 0", value, loose),
        _row("∂D = ∂′D = 0", jnp.stack(slopes) / jnp.where(unit > 0, unit, 1.0), loose),
        *_flatness(structure, base),
        _row("D is canonical", gap, loose),
    ]
    return _as_report(base, rows)
