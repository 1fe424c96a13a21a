"""Dually flat geometry as functions of a convex potential, and training that uses it.

`import dualflat as df`, then `df.bregman`, `df.to_theta`, … Each name is imported when it is first
asked for: the command line lives behind this door too, and `dualflat --help` must not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dualflat._version import __version__ as __version__

if TYPE_CHECKING:  # what type checkers and editors read; `_HOMES` is what runs
    from dualflat.geometry.algebra import (
        AffineImage,
        Dual,
        Product,
        Scaled,
        Sum,
        dual,
    )
    from dualflat.geometry.connection import (
        DualStructure,
        alpha_connection,
        change_chart,
        conjugate_connection,
        cubic_tensor,
        curvature_tensor,
        dual_structure,
        levi_civita,
        mean_connection,
        pull_back,
        torsion,
    )
    from dualflat.geometry.distances import (
        fisher_rao_beta,
        fisher_rao_categorical,
        fisher_rao_dirichlet,
        fisher_rao_gamma,
        fisher_rao_mvn,
        fisher_rao_normal,
        fisher_rao_poisson,
    )
    from dualflat.geometry.divergence import (
        bregman,
        canonical,
        fenchel_young,
        jeffreys,
    )
    from dualflat.geometry.families.base import (
        Family,
        cross_entropy,
        entropy,
        kl,
        log_prob,
        sample,
    )
    from dualflat.geometry.families.beta import Beta
    from dualflat.geometry.families.binomial import (
        Bernoulli,
        Binomial,
    )
    from dualflat.geometry.families.categorical import (
        Categorical,
        Multinomial,
    )
    from dualflat.geometry.families.charts import LogProbabilities, MeanCholesky, moments
    from dualflat.geometry.families.combined import (
        Independent,
        Repeated,
    )
    from dualflat.geometry.families.complex_normal import ComplexNormal
    from dualflat.geometry.families.conway_maxwell_poisson import ConwayMaxwellPoisson
    from dualflat.geometry.families.dirichlet import Dirichlet
    from dualflat.geometry.families.finite import (
        Boltzmann,
        Ising,
        LogLinear,
    )
    from dualflat.geometry.families.from_statistics import from_statistics
    from dualflat.geometry.families.gamma import (
        Chi,
        ChiSquare,
        Gamma,
        InverseGamma,
    )
    from dualflat.geometry.families.gaussian import Gaussian
    from dualflat.geometry.families.generalized_dirichlet import GeneralizedDirichlet
    from dualflat.geometry.families.generalized_inverse_gaussian import GeneralizedInverseGaussian
    from dualflat.geometry.families.inference import (
        Statistics,
        fit,
        log_evidence,
        log_likelihood,
        log_predictive,
        posterior,
        statistics,
    )
    from dualflat.geometry.families.inverse_gaussian import InverseGaussian
    from dualflat.geometry.families.logarithmic import Logarithmic
    from dualflat.geometry.families.mixture import Mixtures
    from dualflat.geometry.families.negative_binomial import (
        Geometric,
        NegativeBinomial,
    )
    from dualflat.geometry.families.normal import (
        LogNormal,
        Normal,
    )
    from dualflat.geometry.families.normal_gamma import NormalGamma
    from dualflat.geometry.families.normal_wishart import (
        NormalInverseWishart,
        NormalWishart,
    )
    from dualflat.geometry.families.poisson import (
        Poisson,
        ZeroTruncatedPoisson,
    )
    from dualflat.geometry.families.rates import (
        Exponential,
        Laplace,
        Pareto,
        Rayleigh,
        Weibull,
    )
    from dualflat.geometry.families.structured_gaussian import (
        DiagonalNormal,
        FixedCovarianceNormal,
        IsotropicNormal,
        MarkovNormal,
    )
    from dualflat.geometry.families.von_mises_fisher import (
        VonMises,
        VonMisesFisher,
    )
    from dualflat.geometry.families.wishart import (
        InverseWishart,
        Wishart,
    )
    from dualflat.geometry.geodesic import (
        distance,
        e_geodesic,
        exponential,
        geodesic,
        geodesic_from,
        length,
        logarithm,
        m_geodesic,
        midpoint,
    )
    from dualflat.geometry.jensen import (
        alpha_divergence,
        bhattacharyya,
        chernoff_information,
        jensen_bregman,
        renyi,
        skew_jensen,
    )
    from dualflat.geometry.legendre import (
        conjugate,
        dual_point,
        to_eta,
        to_theta,
    )
    from dualflat.geometry.metric import (
        inner,
        inverse_metric,
        log_det_metric,
        lower_index,
        metric,
        metric_root,
        raise_index,
    )
    from dualflat.geometry.potential import Potential
    from dualflat.geometry.potentials.barriers import (
        LogBarrier,
        LogDet,
    )
    from dualflat.geometry.potentials.entropies import (
        Burg,
        Hellinger,
        NegativeEntropy,
    )
    from dualflat.geometry.potentials.logistic import (
        BitEntropy,
        LogCosh,
        Softplus,
    )
    from dualflat.geometry.potentials.norms import (
        PNorm,
        QuadraticForm,
    )
    from dualflat.geometry.potentials.simplex import (
        LogSumExp,
        SimplexEntropy,
    )
    from dualflat.geometry.projection import (
        alternating_projections,
        cyclic_projections,
        e_projection,
        m_projection,
    )
    from dualflat.geometry.solve import (
        Solution,
        Status,
        newton,
    )
    from dualflat.geometry.structure import (
        flatness,
        from_divergence,
        recover,
    )
    from dualflat.geometry.submanifold import (
        EFlat,
        ELevel,
        MFlat,
        MLevel,
        from_mixed,
        to_mixed,
    )
    from dualflat.geometry.transport import (
        e_transport,
        holonomy,
        m_transport,
        transport,
    )

__all__ = [
    "AffineImage",
    "Bernoulli",
    "Beta",
    "Binomial",
    "BitEntropy",
    "Boltzmann",
    "Burg",
    "Categorical",
    "Chi",
    "ChiSquare",
    "ComplexNormal",
    "ConwayMaxwellPoisson",
    "DiagonalNormal",
    "Dirichlet",
    "Dual",
    "DualStructure",
    "EFlat",
    "ELevel",
    "Exponential",
    "Family",
    "FixedCovarianceNormal",
    "Gamma",
    "Gaussian",
    "GeneralizedDirichlet",
    "GeneralizedInverseGaussian",
    "Geometric",
    "Hellinger",
    "Independent",
    "InverseGamma",
    "InverseGaussian",
    "InverseWishart",
    "Ising",
    "IsotropicNormal",
    "Laplace",
    "LogBarrier",
    "LogCosh",
    "LogDet",
    "LogLinear",
    "LogNormal",
    "LogProbabilities",
    "LogSumExp",
    "Logarithmic",
    "MFlat",
    "MLevel",
    "MarkovNormal",
    "MeanCholesky",
    "Mixtures",
    "Multinomial",
    "NegativeBinomial",
    "NegativeEntropy",
    "Normal",
    "NormalGamma",
    "NormalInverseWishart",
    "NormalWishart",
    "PNorm",
    "Pareto",
    "Poisson",
    "Potential",
    "Product",
    "QuadraticForm",
    "Rayleigh",
    "Repeated",
    "Scaled",
    "SimplexEntropy",
    "Softplus",
    "Solution",
    "Statistics",
    "Status",
    "Sum",
    "VonMises",
    "VonMisesFisher",
    "Weibull",
    "Wishart",
    "ZeroTruncatedPoisson",
    "alpha_connection",
    "alpha_divergence",
    "alternating_projections",
    "bhattacharyya",
    "bregman",
    "canonical",
    "change_chart",
    "chernoff_information",
    "conjugate",
    "conjugate_connection",
    "cross_entropy",
    "cubic_tensor",
    "curvature_tensor",
    "cyclic_projections",
    "distance",
    "dual",
    "dual_point",
    "dual_structure",
    "e_geodesic",
    "e_projection",
    "e_transport",
    "entropy",
    "exponential",
    "fenchel_young",
    "fisher_rao_beta",
    "fisher_rao_categorical",
    "fisher_rao_dirichlet",
    "fisher_rao_gamma",
    "fisher_rao_mvn",
    "fisher_rao_normal",
    "fisher_rao_poisson",
    "fit",
    "flatness",
    "from_divergence",
    "from_mixed",
    "from_statistics",
    "geodesic",
    "geodesic_from",
    "holonomy",
    "inner",
    "inverse_metric",
    "jeffreys",
    "jensen_bregman",
    "kl",
    "length",
    "levi_civita",
    "log_det_metric",
    "log_evidence",
    "log_likelihood",
    "log_predictive",
    "log_prob",
    "logarithm",
    "lower_index",
    "m_geodesic",
    "m_projection",
    "m_transport",
    "mean_connection",
    "metric",
    "metric_root",
    "midpoint",
    "moments",
    "newton",
    "posterior",
    "pull_back",
    "raise_index",
    "recover",
    "renyi",
    "sample",
    "skew_jensen",
    "statistics",
    "to_eta",
    "to_mixed",
    "to_theta",
    "torsion",
    "transport",
]

_HOMES = {
    "algebra": (
        "AffineImage",
        "Dual",
        "Product",
        "Scaled",
        "Sum",
        "dual",
    ),
    "connection": (
        "DualStructure",
        "alpha_connection",
        "change_chart",
        "conjugate_connection",
        "cubic_tensor",
        "curvature_tensor",
        "dual_structure",
        "levi_civita",
        "mean_connection",
        "pull_back",
        "torsion",
    ),
    "distances": (
        "fisher_rao_beta",
        "fisher_rao_categorical",
        "fisher_rao_dirichlet",
        "fisher_rao_gamma",
        "fisher_rao_mvn",
        "fisher_rao_normal",
        "fisher_rao_poisson",
    ),
    "divergence": (
        "bregman",
        "canonical",
        "fenchel_young",
        "jeffreys",
    ),
    "families.base": (
        "Family",
        "cross_entropy",
        "entropy",
        "kl",
        "log_prob",
        "sample",
    ),
    "families.beta": ("Beta",),
    "families.binomial": (
        "Bernoulli",
        "Binomial",
    ),
    "families.categorical": (
        "Categorical",
        "Multinomial",
    ),
    "families.charts": ("LogProbabilities", "MeanCholesky", "moments"),
    "families.combined": (
        "Independent",
        "Repeated",
    ),
    "families.complex_normal": ("ComplexNormal",),
    "families.conway_maxwell_poisson": ("ConwayMaxwellPoisson",),
    "families.dirichlet": ("Dirichlet",),
    "families.finite": (
        "Boltzmann",
        "Ising",
        "LogLinear",
    ),
    "families.from_statistics": ("from_statistics",),
    "families.gamma": (
        "Chi",
        "ChiSquare",
        "Gamma",
        "InverseGamma",
    ),
    "families.gaussian": ("Gaussian",),
    "families.generalized_dirichlet": ("GeneralizedDirichlet",),
    "families.generalized_inverse_gaussian": ("GeneralizedInverseGaussian",),
    "families.inference": (
        "Statistics",
        "fit",
        "log_evidence",
        "log_likelihood",
        "log_predictive",
        "posterior",
        "statistics",
    ),
    "families.inverse_gaussian": ("InverseGaussian",),
    "families.logarithmic": ("Logarithmic",),
    "families.mixture": ("Mixtures",),
    "families.negative_binomial": (
        "Geometric",
        "NegativeBinomial",
    ),
    "families.normal": (
        "LogNormal",
        "Normal",
    ),
    "families.normal_gamma": ("NormalGamma",),
    "families.normal_wishart": (
        "NormalInverseWishart",
        "NormalWishart",
    ),
    "families.poisson": (
        "Poisson",
        "ZeroTruncatedPoisson",
    ),
    "families.rates": (
        "Exponential",
        "Laplace",
        "Pareto",
        "Rayleigh",
        "Weibull",
    ),
    "families.structured_gaussian": (
        "DiagonalNormal",
        "FixedCovarianceNormal",
        "IsotropicNormal",
        "MarkovNormal",
    ),
    "families.von_mises_fisher": (
        "VonMises",
        "VonMisesFisher",
    ),
    "families.wishart": (
        "InverseWishart",
        "Wishart",
    ),
    "geodesic": (
        "distance",
        "e_geodesic",
        "exponential",
        "geodesic",
        "geodesic_from",
        "length",
        "logarithm",
        "m_geodesic",
        "midpoint",
    ),
    "jensen": (
        "alpha_divergence",
        "bhattacharyya",
        "chernoff_information",
        "jensen_bregman",
        "renyi",
        "skew_jensen",
    ),
    "legendre": (
        "conjugate",
        "dual_point",
        "to_eta",
        "to_theta",
    ),
    "metric": (
        "inner",
        "inverse_metric",
        "log_det_metric",
        "lower_index",
        "metric",
        "metric_root",
        "raise_index",
    ),
    "potential": ("Potential",),
    "potentials.barriers": (
        "LogBarrier",
        "LogDet",
    ),
    "potentials.entropies": (
        "Burg",
        "Hellinger",
        "NegativeEntropy",
    ),
    "potentials.logistic": (
        "BitEntropy",
        "LogCosh",
        "Softplus",
    ),
    "potentials.norms": (
        "PNorm",
        "QuadraticForm",
    ),
    "potentials.simplex": (
        "LogSumExp",
        "SimplexEntropy",
    ),
    "projection": (
        "alternating_projections",
        "cyclic_projections",
        "e_projection",
        "m_projection",
    ),
    "solve": (
        "Solution",
        "Status",
        "newton",
    ),
    "structure": (
        "flatness",
        "from_divergence",
        "recover",
    ),
    "submanifold": (
        "EFlat",
        "ELevel",
        "MFlat",
        "MLevel",
        "from_mixed",
        "to_mixed",
    ),
    "transport": (
        "e_transport",
        "holonomy",
        "m_transport",
        "transport",
    ),
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
