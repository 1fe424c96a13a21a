"""Separable potentials between the line and an interval: softplus, log cosh, and their duals."""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _bits, _numerics
from dualflat.geometry._tree import register
from dualflat.geometry.potentials.separable import Separable


@register
@dataclasses.dataclass(frozen=True)
class Softplus(Separable):
    """n independent bits: minus the log-probability of 0, as a function of the log-odds of 1.

        ψ(θ) = Σ log(1 + exp θᵢ),    ηᵢ = pᵢ = 1/(1 + exp −θᵢ),    G = diag pᵢ(1 − pᵢ),
        φ(η) = Σ ηᵢ log ηᵢ + (1 − ηᵢ) log(1 − ηᵢ),    D(θ, θ′) = Σ KL(p′ᵢ‖pᵢ) of two bits.

    The domain is ℝⁿ, the range of ∇ψ the open cube (0, 1)ⁿ; φ and the gap continue to its faces,
    where they are the log-losses of certain outcomes. In D, p′ − p = p(1 − p′) (exp(θ′ − θ) − 1) is
    not subtracted. Everything is relatively accurate for every θ. Dual: `BitEntropy`.

    >>> psi = Softplus(1)
    >>> psi.gap(jnp.array([3.0]), jnp.array([1.0])).round(4)  # −log p of the outcome 1
    Array(0.0486, dtype=float32)
    """

    range = (0.0, 1.0)

    def _value(self, t: Array) -> Array:
        return jnp.logaddexp(0.0, t)

    def _slope(self, t: Array) -> Array:
        return _bits.sigmoid(t)

    def _bend(self, t: Array) -> Array:
        return _bits.sigmoid(t) * _bits.sigmoid(-t)

    def _inverse(self, s: Array) -> Array:
        return _bits.log_odds(s)

    def _conjugate(self, s: Array) -> Array:
        return _bits.bit_entropy(s)

    def _divergence(self, t: Array, base: Array) -> Array:
        return _bits.softplus_divergence(t, base)

    def _gap(self, t: Array, s: Array) -> Array:
        return _bits.bit_gap(t, s, 1 - s)


@register
@dataclasses.dataclass(frozen=True)
class LogCosh(Separable):
    """A smooth |θ|: n independent signs ±1.

        ψ(θ) = Σ log cosh θᵢ,    ηᵢ = tanh θᵢ,    G = diag 1/cosh² θᵢ,
        φ(η) = ½ Σ (1 + ηᵢ) log(1 + ηᵢ) + (1 − ηᵢ) log(1 − ηᵢ).

    The domain is ℝⁿ, the range of ∇ψ the open cube (−1, 1)ⁿ; φ and the gap continue to its faces.
    D is that of `Softplus` at 2θ and 2θ′, because log cosh θ = log(1 + exp 2θ) − θ − log 2. Near 0,
    where that is a difference, ψ is log(1 + 2 sinh² θ/2).

    >>> psi = LogCosh(1)
    >>> print(f"{psi(jnp.array([1e-4])):.4e} {psi(jnp.array([100.0])):.4f}")  # θ²/2, |θ| − log 2
    5.0000e-09 99.3069
    """

    range = (-1.0, 1.0)

    def _value(self, t: Array) -> Array:
        size = jnp.abs(t)
        near = size < 1
        root = jnp.sinh(jnp.where(near, t, 0.0) / 2)
        far = jnp.where(near, 1.0, size)
        far = far + jnp.log1p(jnp.exp(-2 * far)) - math.log(2)
        return jnp.where(near, jnp.log1p(2 * root * root), far)

    def _slope(self, t: Array) -> Array:
        return jnp.tanh(t)

    def _bend(self, t: Array) -> Array:
        return 4 * _bits.sigmoid(2 * t) * _bits.sigmoid(-2 * t)

    def _inverse(self, s: Array) -> Array:
        return jnp.arctanh(s)

    def _conjugate(self, s: Array) -> Array:
        return 0.5 * (_numerics.log1p_excess(s) + _numerics.log1p_excess(-s))

    def _divergence(self, t: Array, base: Array) -> Array:
        return _bits.softplus_divergence(2 * t, 2 * base)

    def _gap(self, t: Array, s: Array) -> Array:
        return _bits.bit_gap(2 * t, (1 + s) / 2, (1 - s) / 2)


@register
@dataclasses.dataclass(frozen=True)
class BitEntropy(Separable):
    """Minus the entropy of n independent bits with probabilities θᵢ (Fermi and Dirac's).

        ψ(θ) = Σ θᵢ log θᵢ + (1 − θᵢ) log(1 − θᵢ),    ηᵢ = log θᵢ/(1 − θᵢ),    φ(η) = Σ log(1 + exp ηᵢ),
        G = diag 1/(θᵢ(1 − θᵢ)),    D(θ, θ′) = Σ KL(θᵢ‖θ′ᵢ) of two bits.

    The domain is the open cube (0, 1)ⁿ, the range of ∇ψ all of ℝⁿ. Dual: `Softplus`.

    >>> psi = BitEntropy(2)
    >>> psi.to_eta(jnp.array([0.5, 0.75])).round(4)  # 0, log 3
    Array([0.    , 1.0986], dtype=float32)
    """

    domain = (0.0, 1.0)
    middle = 0.5

    def _value(self, t: Array) -> Array:
        return _bits.bit_entropy(t)

    def _slope(self, t: Array) -> Array:
        return _bits.log_odds(t)

    def _bend(self, t: Array) -> Array:
        return 1 / (t * (1 - t))

    def _inverse(self, s: Array) -> Array:
        return _bits.sigmoid(s)

    def _conjugate(self, s: Array) -> Array:
        return jnp.logaddexp(0.0, s)

    def _divergence(self, t: Array, base: Array) -> Array:
        step = t - base
        one = _numerics.relative_entropy(t, base, step)
        return one + _numerics.relative_entropy(1 - t, 1 - base, -step)

    def _gap(self, t: Array, s: Array) -> Array:
        return _bits.bit_gap(s, t, 1 - t)
