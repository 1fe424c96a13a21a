"""G, T, Γ and R of a potential in 60 digits, by differences of its gradient."""

import mpmath as mp
import numpy as np


def difference(fn, point, k, h):
    """∂ₖ of a list-valued fn by central differences: in 60 digits h = 1e-12 leaves h² = 1e-24."""
    up, down = ([x + sign * h * (i == k) for i, x in enumerate(point)] for sign in (1, -1))
    return [(a - b) / (2 * h) for a, b in zip(fn(up), fn(down), strict=True)]


def exact_hessian(exact, point):
    n = len(point)
    return mp.matrix([difference(exact.gradient, point, k, mp.mpf("1e-20")) for k in range(n)])


def exact_cubic(exact, point):
    """(n, n, n) as nested lists."""

    def flat(x):
        return list(exact_hessian(exact, x))

    n = len(point)
    rows = [difference(flat, point, k, mp.mpf("1e-12")) for k in range(n)]
    return [[[rows[k][i * n + j] for k in range(n)] for j in range(n)] for i in range(n)]


def exact_gamma(exact, point, alpha):
    """Γᵢⱼᵏ = ½(1 − α)TᵢⱼₗGˡᵏ."""
    n, third = len(point), exact_cubic(exact, point)
    inverse = exact_hessian(exact, point) ** -1
    weight = (1 - mp.mpf(alpha)) / 2
    return [
        [
            [weight * sum(third[i][j][a] * inverse[a, k] for a in range(n)) for k in range(n)]
            for j in range(n)
        ]
        for i in range(n)
    ]


def exact_curvature(exact, point, alpha):
    """From its definition, with derivatives of Γ: nothing is known of the cubic tensor's formula."""
    n = len(point)

    def flat(x):
        return [c for a in exact_gamma(exact, x, alpha) for b in a for c in b]

    gamma = np.array(exact_gamma(exact, point, alpha), dtype=object)
    slope = [difference(flat, point, k, mp.mpf("1e-9")) for k in range(n)]
    slope = np.array(slope, dtype=object).reshape(n, n, n, n)  # [i, j, k, l] = ∂ᵢΓⱼₖˡ
    half = slope + np.einsum("jkm,iml->ijkl", gamma, gamma)
    return half - half.swapaxes(0, 1)


def worst(found, truth):
    """The largest error, relative to the largest entry."""
    truth = np.array(truth, dtype=object)
    size = max(abs(t) for t in truth.ravel())
    pairs = zip(np.asarray(found).ravel(), truth.ravel(), strict=True)
    return float(max(abs(mp.mpf(float(f)) - t) for f, t in pairs) / size)
