"""Dually flat geometry as functions of a convex potential, and training that uses it."""

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
