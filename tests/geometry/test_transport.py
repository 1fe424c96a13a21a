import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualflat.geometry.connection import (
    DualStructure,
    alpha_connection,
    dual_structure,
    levi_civita,
)
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.metric import metric
from dualflat.geometry.transport import (
    e_transport,
    holonomy,
    holonomy_defect,
    m_transport,
    transport,
    transport_defect,
    transport_matrix,
    transport_path,
)
from tests.geometry.truth import user_made

CENTRE = np.array([0.3, -0.4])


def loop(t):
    """A closed curve in ℝ² without symmetry."""
    turn = 2 * jnp.pi * t
    return CENTRE + jnp.stack([jnp.cos(turn) - 1 + 0.2 * jnp.sin(2 * turn), 0.8 * jnp.sin(turn)])


def way(t):
    return CENTRE + jnp.stack([t, jnp.sin(2 * t)])


def test_dual_pairs_keep_their_product(x64):
    """g(A, B) = g(A′, B′) to 1e-12, A by ∇^(α) and B by ∇^(−α), on the way and round a loop.

    Theorem 1 as in the lecture: for the flat pair A′ = A and B′ = B; for others neither, and the
    product holds all the same. Two connections that are not dual do not keep it.
    """

    @jax.jit
    def program():
        flat, curved = dual_structure(user_made), dual_structure(user_made, 0.3)
        wrong = DualStructure(curved.metric, curved.primal, curved.primal)
        return (
            jnp.stack([transport_defect(s, way) for s in (flat, curved)]),
            jnp.stack([holonomy_defect(s, loop) for s in (flat, curved)]),
            jnp.stack([holonomy(c, loop) - jnp.eye(2) for c in (flat.primal, flat.dual)]),
            jnp.stack([holonomy(c, loop) - jnp.eye(2) for c in (curved.primal, curved.dual)]),
            holonomy_defect(wrong, loop),
        )

    on_the_way, round_a_loop, flat, curved, wrong = program()
    assert np.abs(on_the_way).max() < 1e-12
    assert np.abs(round_a_loop).max() < 1e-12
    assert np.abs(flat).max() < 1e-12
    assert np.abs(curved).max(axis=(1, 2)).min() > 1e-2
    assert np.abs(wrong).max() > 1e-2


def test_the_flat_transports_are_closed(x64):
    """By e- and m-transport, and the same by collocation along a path that is not straight."""
    psi = Categorical(2)
    v = jnp.array([0.7, -0.2])

    @jax.jit
    def program():
        start, end = way(0.0), way(1.0)
        found = jnp.stack([transport(alpha_connection(psi, s), way, v) for s in (1.0, -1.0)])
        closed = e_transport(psi, end, start, v), m_transport(psi, end, start, v)
        product = closed[0] @ metric(psi, end) @ closed[1] - v @ metric(psi, start) @ v
        return found, jnp.stack(closed), product

    found, closed, product = program()
    np.testing.assert_allclose(found, closed, rtol=1e-13)
    assert abs(product) < 1e-15


def test_the_angle_of_a_sphere(x64):
    """Round a circle of latitude ϑ, a vector turns by the area inside, 2π(1 − cos ϑ), exactly."""
    colatitude = 0.7

    def sphere(x):
        return jnp.diag(jnp.stack([jnp.ones_like(x[0]), jnp.sin(x[0]) ** 2]))

    def circle(t):
        return jnp.stack([jnp.full_like(t, colatitude), 2 * jnp.pi * t])

    # Not closed in this chart, so the matrix itself; the frame is orthonormal after scaling.
    found = jax.jit(lambda: transport_matrix(levi_civita(sphere), circle))()
    scale = np.array([1.0, np.sin(colatitude)])
    turn = 2 * np.pi * np.cos(colatitude)
    expected = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    np.testing.assert_allclose(found * scale[:, None] / scale, expected, rtol=0, atol=1e-13)
    assert np.isnan(holonomy(levi_civita(sphere), circle)).all()  # φ = 2π is not φ = 0


def test_corners_are_edges_of_panels(x64):
    """A triangle needs its corners as edges; panels that straddle them are found out."""
    corners = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])

    def triangle(t):
        side = jnp.clip((3 * t).astype(int), 0, 2)
        return corners[side] + (3 * t - side) * (corners[side + 1] - corners[side])

    connection = alpha_connection(user_made, -1.0)  # flat, so the way back is the identity
    good = holonomy(connection, triangle, panels=jnp.linspace(0, 1, 13))
    np.testing.assert_allclose(good, np.eye(2), atol=1e-12)
    assert np.isnan(holonomy(connection, triangle, panels=4)).all()


def test_derivatives_forwards_and_backwards(x64):
    """Of a flat transport by its end: ∂(G(θ)⁻¹w) = −G⁻¹(∂G)G⁻¹w, both ways and twice."""
    psi, v, start = Categorical(2), jnp.array([0.7, -0.2]), jnp.array([0.1, 0.2])

    def collocated(end):
        return transport(alpha_connection(psi, -1.0), lambda t: start + t * (end - start), v)

    def closed(end):
        return m_transport(psi, end, start, v)

    @jax.jit
    def program(end):
        return (
            jax.jacfwd(collocated)(end) - jax.jacfwd(closed)(end),
            jax.jacrev(collocated)(end) - jax.jacfwd(closed)(end),
            jax.jacfwd(jax.jacrev(collocated))(end) - jax.hessian(closed)(end),
        )

    for defect in program(jnp.array([0.6, -0.5])):
        assert np.abs(defect).max() < 1e-12


def test_steps_that_adapt_agree(x64):
    connection, v = alpha_connection(user_made, 0.3), jnp.array([0.7, -0.2])
    times = jnp.array([0.0, 0.5, 1.0])
    path = jax.jit(lambda: transport_path(connection, loop, v, times))()
    np.testing.assert_allclose(path[-1], transport(connection, loop, v), rtol=1e-10)
    np.testing.assert_array_equal(path[0], v)


def test_without_diffrax_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match=r"extra `ode`.*dualflat\[ode\]"):
        transport_path(alpha_connection(user_made, 0.0), way, jnp.ones(2), jnp.array([0.0, 1.0]))


def test_float32_stays_float32(x64):
    def line(centre):
        return lambda t: centre + t * jnp.array([1.0, 2.0], centre.dtype)

    single, double = (
        transport_matrix(alpha_connection(Categorical(2), 0.0), line(jnp.asarray(CENTRE, dtype)))
        for dtype in (jnp.float32, jnp.float64)
    )
    assert (single.dtype, double.dtype) == (jnp.float32, jnp.float64)
    np.testing.assert_allclose(single, double, rtol=0, atol=2e-6)


def test_bad_input_is_refused_with_words():
    connection = alpha_connection(Categorical(2), 0.0)
    with pytest.raises(ValueError, match=r"curve returns shape \(\).*jax\.vmap"):
        transport_matrix(connection, lambda t: t)
    with pytest.raises(ValueError, match=r"panels is 0.*positive integer"):
        transport_matrix(connection, lambda t: jnp.stack([t, t]), panels=0)
    with pytest.raises(ValueError, match=r"vector has shape \(3,\)"):
        m_transport(Categorical(2), jnp.zeros(2), jnp.zeros(2), jnp.zeros(3))
