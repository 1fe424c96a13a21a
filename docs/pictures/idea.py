# ruff: noqa: D103
"""The picture of the README: one space, two flat coordinate systems, and training between them.

python docs/pictures/idea.py        writes docs/pictures/idea.png (needs matplotlib)
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

import dualflat as df

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

PAPER, INK, GREY = "#fcfbf8", "#23262e", "#8b8f99"
THETA, ETA = "#2563c9", "#d9700f"
BOX = 2.9  # half the side of the window onto the θ plane

psi = df.Categorical(2)
to_eta = jax.vmap(lambda theta: df.to_eta(psi, theta))
to_theta = jax.vmap(lambda eta: df.to_theta(psi, eta))

P, Q = jnp.array([1.9, -0.7]), jnp.array([-1.5, 1.7])  # two laws, by θ
CENTRE = jnp.array([-0.75, -0.85])


def corner(etas):
    """Where a law stands in the triangle whose corners are the certain outcomes 0, 1, 2."""
    first, second = np.asarray(etas).T
    return first + second / 2, second * np.sqrt(3) / 2


def plane(thetas):
    return tuple(np.asarray(thetas).T)


def segment(a, b, count=200):
    return a + jnp.linspace(0, 1, count)[:, None] * (b - a)


def draw(ax, place_theta, place_eta, far):
    """Everything that both panels show; only the coordinates in which it is shown differ."""
    for level in np.linspace(-4, 4, 9):
        run = jnp.linspace(-far, far, 300)
        for fixed in (0, 1):
            line = jnp.stack([jnp.full(300, level), run], 1)
            ax.plot(
                *place_theta(line if fixed == 0 else line[:, ::-1]), color=THETA, lw=0.7, alpha=0.38
            )
    for level in np.arange(0.1, 0.95, 0.1):
        run = jnp.linspace(1e-5, 1 - level - 1e-5, 300)
        for fixed in (0, 1):
            line = jnp.stack([jnp.full(300, level), run], 1)
            ax.plot(
                *place_eta(line if fixed == 0 else line[:, ::-1]), color=ETA, lw=0.7, alpha=0.42
            )
    ax.plot(*place_theta(segment(P, Q)), color=THETA, lw=2.6, solid_capstyle="round", zorder=4)
    etas = to_eta(jnp.stack([P, Q]))
    ax.plot(
        *place_eta(segment(etas[0], etas[1])), color=ETA, lw=2.6, solid_capstyle="round", zorder=4
    )
    ax.plot(*place_theta(jnp.stack([P, Q])), "o", color=INK, ms=5.5, zorder=5)
    angles = jnp.linspace(0, 2 * jnp.pi, 181)
    for ball, color in ((forwards, THETA), (backwards, ETA)):
        around = CENTRE + ball(angles)[:, None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
        where = place_theta(around)
        ax.fill(*where, color=color, alpha=0.13, lw=0, zorder=2)
        ax.plot(*where, color=color, lw=1.6, zorder=3)
    ax.plot(*place_theta(CENTRE[None]), "o", color=INK, ms=3.5, zorder=5)
    ax.set_aspect("equal")
    ax.axis("off")


def radius(divergence):
    """Along each direction from the centre, how far the ball D ≤ 0.1 reaches, by bisection."""

    def reach(angle):
        direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)])

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            inside = divergence(CENTRE + middle * direction) < 0.1
            return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

        return jax.lax.fori_loop(0, 30, halve, (0.0, 6.0))[0]

    return jax.vmap(reach)


forwards = radius(lambda theta: df.bregman(psi, theta, CENTRE))
backwards = radius(lambda theta: df.bregman(psi, CENTRE, theta))


def in_eta(ax):
    draw(ax, lambda thetas: corner(to_eta(thetas)), corner, far=14.0)
    ax.plot([0, 1, 0.5, 0], [0, 0, np.sqrt(3) / 2, 0], color=INK, lw=1.3, zorder=3)
    for (x, y), name in (((0, 0), "p₀ = 1"), ((1, 0), "p₁ = 1")):
        ax.text(x, y - 0.055, name, ha="center", va="center", color=GREY, fontsize=9)
    ax.text(0.5, np.sqrt(3) / 2 + 0.045, "p₂ = 1", ha="center", color=GREY, fontsize=9)
    ax.set_xlim(-0.08, 1.08)
    ax.set_ylim(-0.1, 0.97)
    title(ax, "in η, the means", ETA)


def in_theta(ax):
    draw(ax, plane, lambda etas: plane(to_theta(etas)), far=6.0)
    ax.set_xlim(-BOX, BOX)
    ax.set_ylim(-BOX, BOX)
    ax.add_patch(
        plt.Rectangle((-BOX, -BOX), 2 * BOX, 2 * BOX, fill=False, ec=INK, lw=1.3, clip_on=False)
    )
    title(ax, "in θ, the log-odds", THETA)


def training(ax):
    ax.set_xlim(0, 10)
    ax.set_ylim(0, 10)
    ax.axis("off")
    ax.add_patch(
        FancyBboxPatch(
            (0.5, 6.75),
            9,
            2.2,
            boxstyle="round,pad=0.08,rounding_size=0.25",
            fc="white",
            ec=INK,
            lw=1.3,
        )
    )
    ax.text(
        5,
        8.42,
        "parameter store, cut into shards",
        ha="center",
        va="center",
        fontsize=10.5,
        color=INK,
    )
    for k in range(4):
        ax.add_patch(
            FancyBboxPatch(
                (0.95 + 2.08 * k, 6.98),
                1.86,
                0.86,
                boxstyle="round,pad=0.02,rounding_size=0.12",
                fc="#eef2fa",
                ec="#c3cde0",
                lw=1,
            )
        )
        ax.text(
            1.88 + 2.08 * k,
            7.41,
            ("θ₁ ⇄ η₁", "θ₂ ⇄ η₂", "θ₃ ⇄ η₃", "θ₄ ⇄ η₄")[k],
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
        )
    for k in range(3):
        x = 1.75 + 3.25 * k
        ax.add_patch(
            FancyBboxPatch(
                (x - 1.2, 0.85),
                2.4,
                1.35,
                boxstyle="round,pad=0.08,rounding_size=0.25",
                fc="white",
                ec=INK,
                lw=1.3,
            )
        )
        ax.text(x, 1.72, "worker", ha="center", va="center", fontsize=10.5, color=INK)
        ax.text(x, 1.16, "part of the batch", ha="center", va="center", fontsize=7, color=GREY)
        arrow(ax, (x - 0.42, 6.6), (x - 0.42, 2.42), THETA)
        arrow(ax, (x + 0.42, 2.42), (x + 0.42, 6.6), ETA)
    for x, text, color in (
        (3.375, "vectors\nθ are\nserved", THETA),
        (6.625, "covectors\n∂L are\nsummed", ETA),
    ):
        ax.text(
            x,
            4.5,
            text,
            ha="center",
            va="center",
            fontsize=10,
            color=color,
            weight="bold",
            linespacing=1.35,
        )
    title(ax, "training goes round between the two", INK)


def arrow(ax, start, end, color):
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=14, lw=2, color=color, shrinkA=0, shrinkB=0
        )
    )


def title(ax, text, color):
    ax.set_title(text, fontsize=12.5, color=color, pad=7, weight="bold")


def main():
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure, axes = plt.subplots(
        1, 3, figsize=(12.6, 4.75), facecolor=PAPER, width_ratios=(1.13, 1, 1.12)
    )
    for ax, panel in zip(axes, (in_eta, in_theta, training), strict=True):
        panel(ax)
    figure.subplots_adjust(left=0.015, right=0.985, top=0.9, bottom=0.15, wspace=0.09)
    legend = (
        (0.02, "one space, one metric ∇²ψ", INK, "normal"),
        (0.215, "straight in θ: geometric mixtures", THETA, "bold"),
        (0.475, "straight in η: mixtures", ETA, "bold"),
        (0.655, "balls {x : D(x, c) ≤ r}", THETA, "bold"),
        (0.815, "and {x : D(c, x) ≤ r}", ETA, "bold"),
    )
    for x, text, color, weight in legend:
        figure.text(x, 0.05, text, color=color, fontsize=10.5, weight=weight)
    out = Path(__file__).with_suffix(".png")
    figure.savefig(out, dpi=150, facecolor=PAPER)
    Image.open(out).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
