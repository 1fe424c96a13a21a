"""Dually flat geometry as functions of a convex potential, and training that uses it.

`import dualflat as df`, then `df.bregman`, `df.to_theta`, … Each name is imported when it is first
asked for: the command line lives behind this door too, and `dualflat --help` must not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dualflat._version import __version__ as __version__

if TYPE_CHECKING:  # what type checkers and editors read; `_HOMES` is what runs
    from dualflat.geometry.divergence import bregman, canonical, fenchel_young
    from dualflat.geometry.families.categorical import Categorical
    from dualflat.geometry.families.gaussian import Gaussian
    from dualflat.geometry.legendre import conjugate, dual_point, to_eta, to_theta
    from dualflat.geometry.metric import inner, inverse_metric, lower_index, metric, raise_index
    from dualflat.geometry.potential import Potential
    from dualflat.geometry.solve import Solution, Status, newton

__all__ = [
    "Categorical",
    "Gaussian",
    "Potential",
    "Solution",
    "Status",
    "bregman",
    "canonical",
    "conjugate",
    "dual_point",
    "fenchel_young",
    "inner",
    "inverse_metric",
    "lower_index",
    "metric",
    "newton",
    "raise_index",
    "to_eta",
    "to_theta",
]

_HOMES = {
    "divergence": ("bregman", "canonical", "fenchel_young"),
    "families.categorical": ("Categorical",),
    "families.gaussian": ("Gaussian",),
    "legendre": ("conjugate", "dual_point", "to_eta", "to_theta"),
    "metric": ("inner", "inverse_metric", "lower_index", "metric", "raise_index"),
    "potential": ("Potential",),
    "solve": ("Solution", "Status", "newton"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"dualflat.geometry.{home}"), name)
            globals()[name] = value  # from now on an ordinary attribute
            return value
    raise AttributeError(
        f"dualflat has no {name!r}. It offers {', '.join(__all__)};"
        " what is not among them is imported from its own module, such as dualflat.geometry.laws."
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
