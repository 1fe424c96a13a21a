"""What `dualflat verify` does: find a potential by its name, hold it against the laws, say what broke.

Nothing here prints; `console` shows the findings and `cli` chooses the exit status.
"""

import dataclasses
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry import laws
from dualflat.geometry.laws import LAWS, Law
from dualflat.geometry.legendre import dual_point
from dualflat.geometry.metric import gradient, metric
from dualflat.geometry.potential import Potential, in_domain, knowledge
from dualflat.geometry.solve import Status


@dataclasses.dataclass(frozen=True)
class Named:
    """A potential that comes with dualflat: where it is defined, and how large it is by default."""

    home: str
    kind: str
    size: int
    about: str
    build: Callable[[Any, int], Any] = lambda kind, size: kind(size)

    def __call__(self, size: int | None = None) -> Any:
        """The potential of this size."""
        module = importlib.import_module(f"dualflat.geometry.{self.home}")
        return self.build(getattr(module, self.kind), self.size if size is None else size)


def _chain(size: int) -> np.ndarray:
    return 2 * np.eye(size) - np.eye(size, k=1) - np.eye(size, k=-1)


def _cube(kind: Any, size: int) -> Any:
    return kind(np.concatenate([np.eye(size), -np.eye(size)]), np.ones(2 * size), np.zeros(size))


NAMED: dict[str, Named] = {
    "categorical": Named("families.categorical", "Categorical", 3, "laws on n + 1 outcomes"),
    "gaussian": Named("families.gaussian", "Gaussian", 1, "normal laws on ℝᵈ"),
    "dirichlet": Named("families.dirichlet", "Dirichlet", 3, "laws on the simplex, log Γ inside"),
    "log-sum-exp": Named("potentials.simplex", "LogSumExp", 3, "log(1 + Σ exp θ), a soft maximum"),
    "simplex-entropy": Named(
        "potentials.simplex", "SimplexEntropy", 3, "minus the entropy of n + 1 probabilities"
    ),
    "quadratic": Named(
        "potentials.norms",
        "QuadraticForm",
        3,
        "½θᵀQθ: Euclid's space",
        lambda kind, size: kind(_chain(size)),
    ),
    "entropy": Named("potentials.entropies", "NegativeEntropy", 3, "Σ θ log θ − θ, θ > 0"),
    "burg": Named("potentials.entropies", "Burg", 3, "−Σ log θ, θ > 0"),
    "hellinger": Named("potentials.entropies", "Hellinger", 3, "−2 Σ √θ, θ > 0"),
    "softplus": Named("potentials.logistic", "Softplus", 3, "Σ log(1 + exp θ)"),
    "log-cosh": Named("potentials.logistic", "LogCosh", 3, "Σ log cosh θ"),
    "bit-entropy": Named(
        "potentials.logistic", "BitEntropy", 3, "Σ θ log θ + (1−θ) log(1−θ), 0 < θ < 1"
    ),
    "p-norm": Named("potentials.norms", "PNorm", 3, "⅓ Σ |θ|³", lambda kind, size: kind(size, 3.0)),
    "log-det": Named("potentials.barriers", "LogDet", 2, "−log det X, X positive definite"),
    "cube": Named("potentials.barriers", "LogBarrier", 2, "the log barrier of |θᵢ| < 1", _cube),
}


# --- whom the laws are asked about ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Subject:
    """A potential, how it was named, and a point of its domain."""

    name: str
    psi: Potential
    start: Array  # (n,)

    @property
    def about(self) -> str:
        """In words: what comes with dualflat by its formula, what a user made by its class."""
        named = NAMED.get(self.name.partition(":")[0])
        kind = type(self.psi)
        if named is not None and kind.__module__.startswith("dualflat."):
            return f"{kind.__name__}: {named.about}"
        return "a function of your own" if inspect.isroutine(self.psi) else kind.__name__


def find(what: str, *, dim: int | None, start: Sequence[float] | None, dtype: Any) -> Subject:
    """The potential called `what`: one of `NAMED`, NAME:SIZE, or a user's module:attribute.

    Args:
      what: the word. The attribute may be a potential or a function of no arguments that returns
        one.
      dim: n, where the potential does not say.
      start: a point of the domain, where the potential does not know one.
      dtype: of all that follows.

    Raises:
      ValueError: in words, for whatever the user can mend. An error inside the user's own module
        is raised as it is.
    """
    name, _, rest = what.partition(":")
    if name in NAMED and (not rest or rest.isdigit()):
        psi = NAMED[name](int(rest) if rest else None)
    elif ":" in what:
        psi = _user_made(what)
    else:
        near = difflib.get_close_matches(what, NAMED, n=1)
        raise ValueError(
            f"{what!r} is not known.{f' Did you mean {near[0]}?' if near else ''} Known are"
            f" {', '.join(NAMED)}; a potential of your own is written module:attribute."
        )
    own = getattr(psi, "dim", None)
    if own is None and dim is None and start is not None:
        dim = len(start)
    if own is not None and dim not in (None, own):
        raise ValueError(f"{what}: its dimension is {own}, but --dim says {dim}. Leave --dim out.")
    size = dim if own is None else own
    if size is None:
        raise ValueError(
            f"{what}: how many coordinates does θ have? Say --dim N, or give ψ an attribute `dim`."
        )
    n = int(size)
    _check_scalar(what, psi, n, dtype)
    return Subject(what, psi, _start(what, psi, n, start, dtype))


def _user_made(what: str) -> Any:
    module_name, _, attribute = what.partition(":")
    words = [*module_name.split("."), *attribute.split(".")]
    if not all(word.isidentifier() for word in words):
        raise ValueError(f"{what!r} is not of the form module:attribute.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # so that a user's own file is found
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # `import a.b` fails on `a` or on `a.b`; any other name is missing inside the module itself.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        if module_name in NAMED:  # and no module of the user's is called so
            raise ValueError(
                f"{what!r}: {attribute!r} is no size. Wanted {module_name} or, for example,"
                f" {module_name}:{NAMED[module_name].size}."
            ) from error
        raise ValueError(
            f"there is no module {error.name!r}. Start in the folder that holds it, or install it."
        ) from error
    for word in attribute.split("."):
        if not hasattr(found, word):
            public = [
                name
                for name, value in vars(found).items()
                if callable(value) and not name.startswith("_")
            ]
            near = difflib.get_close_matches(word, public, n=1)
            raise ValueError(
                f"{module_name} has no {attribute!r}. It has {', '.join(near or public[:12]) or 'no function'}."
            )
        found = getattr(found, word)
    if not callable(found):
        raise ValueError(
            f"{what} is of type {type(found).__name__}. Wanted: a convex function ψ(θ) of an array,"
            " or a function of no arguments that returns one."
        )
    return _made(what, found)


def _made(what: str, found: Any) -> Any:
    """The potential itself, where `found` is a class or a function that makes one."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # some callables do not say
        return found
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if isinstance(found, type) and needed:
        raise ValueError(
            f"{what} is a class that wants {', '.join(needed)}. Write a function of no arguments"
            " that returns the potential, or a module attribute that is one."
        )
    if len(needed) > 1:
        raise ValueError(
            f"{what} takes {', '.join(needed)}. Wanted: ψ(θ), a function of one array."
        )
    if needed or (parameters and not isinstance(found, type)):
        return found
    made = found()
    if not callable(made):
        raise ValueError(
            f"{what}() returned {type(made).__name__}. Wanted: a convex function ψ(θ) of an array."
        )
    return made


def _check_scalar(what: str, psi: Any, n: int, dtype: Any) -> None:
    try:
        value = jax.eval_shape(psi, jax.ShapeDtypeStruct((n,), dtype))
    except Exception as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        first = str(error).partition("\n")[0]
        hint = ""
        if isinstance(error, jax.errors.TracerArrayConversionError):
            hint = " Write ψ with jax.numpy instead of numpy, so that it can be differentiated."
        elif isinstance(error, jax.errors.ConcretizationTypeError):
            hint = " Write `jnp.where` instead of `if`, so that it can be differentiated."
        raise ValueError(
            f"{what}: ψ(θ) failed for θ of shape ({n},): {type(error).__name__}: {first}{hint}"
        ) from error
    shape, found = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape != ():
        raise ValueError(
            f"{what}: ψ(θ) has {f'shape {shape}' if shape else f'type {type(value).__name__}'} for θ"
            f" of shape ({n},). Wanted one number; is a .sum() missing?"
        )
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"{what}: ψ(θ) is {found}. Wanted a floating number.")


def _start(what: str, psi: Potential, n: int, given: Sequence[float] | None, dtype: Any) -> Array:
    """A point of the domain: the one given, the potential's own, or one of a few that are tried."""

    def fine(theta: Array) -> bool:
        good = in_domain(psi, theta) & jnp.isfinite(psi(theta))
        return bool(good & jnp.isfinite(gradient(psi, theta)).all())

    if given is not None:
        if len(given) != n:
            raise ValueError(f"{what}: --start has {len(given)} numbers, θ has {n} coordinates.")
        start = jnp.asarray(given, dtype)
        if not fine(start):
            raise ValueError(f"{what}: --start is outside the domain: ψ or ∇ψ is not finite there.")
        return start
    own = knowledge(psi, "starting_point")
    if own is not None:
        return jnp.asarray(own(dtype))
    for level in (0.0, 0.5, 1.0, -0.5, -1.0, 2.0, -2.0, 0.1, -0.1):
        start = jnp.full(n, level, dtype)
        if fine(start):
            return start
    raise ValueError(
        f"{what}: found no point where ψ and ∇ψ are finite. Say one: --start=X,Y,…, or give ψ a"
        " method starting_point(dtype)."
    )


def chosen(words: Sequence[str]) -> tuple[Law, ...]:
    """The laws of these names or numbers; all of them without any.

    A number is that of the lecture: "10", "(10)", "theorem 1".

    Raises:
      ValueError: for a word that means no law.
    """
    found: list[Law] = []
    for word in words:
        plain = word.strip("()").replace("-", "_")
        numbers = {plain, plain.replace("_", " ")}
        fitting = [law for law in LAWS if law.name == plain or numbers & set(law.numbers)]
        if not fitting:
            near = difflib.get_close_matches(plain, [law.name for law in LAWS], n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"no law is called {word!r}.{hint} --list shows them all.")
        found += fitting
    return tuple(law for law in LAWS if law in found) if words else LAWS


# --- what they find ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of one law: the point where it came nearest to failing, or failed worst."""

    law: Law
    residual: float
    tolerance: float
    theta: np.ndarray  # (n,), the first of the points there

    @property
    def holds(self) -> bool:
        """Whether the residual is no more than rounding. NaN is more."""
        return self.residual <= self.tolerance


@dataclasses.dataclass(frozen=True)
class Points:
    """Where the laws are looked at."""

    triples: tuple[Array, Array, Array]  # (N, n) each
    condition: np.ndarray  # (N,), the largest κ(G) of each triple; NaN where G is not definite
    least: np.ndarray  # (N, 3), the least eigenvalue of G at each point

    @property
    def convex(self) -> bool:
        """Is ψ strictly convex at all of them?"""
        return bool(np.isfinite(self.condition).all())


def draw(subject: Subject, count: int, seed: int) -> Points:
    """Triples of points of the domain at random, see `laws.random_points`."""
    keys = jax.random.split(jax.random.key(seed), count)
    triples = _compiled(lambda key: laws.random_points(subject.psi, key, subject.start), keys)
    return with_metric(subject.psi, triples)


def with_metric(psi: Potential, triples: tuple[Array, Array, Array]) -> Points:
    """These triples of points, (N, n) each, with what ∇²ψ is like there."""

    def looked(p, q, r):
        points = jnp.stack([p, q, r])
        kappas = jax.vmap(lambda t: laws.condition(psi, t))(points)
        values = jax.vmap(lambda t: jnp.linalg.eigvalsh(metric(psi, t))[0])(points)
        worst = jnp.where(jnp.isnan(kappas).any(), jnp.nan, kappas.max())
        limit = 1 / (points.shape[1] * jnp.finfo(points.dtype).eps)
        return jnp.where(worst < limit, worst, jnp.nan), values

    condition, least = _compiled(looked, *triples)
    return Points(triples, np.asarray(condition), np.asarray(least))


def examine(
    subject: Subject, points: Points, wanted: Sequence[Law]
) -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    """The parts of the table in order, each with a function that holds its laws against ψ."""
    for part in dict.fromkeys(law.part for law in wanted):
        of_part = [law for law in wanted if law.part == part]
        yield part, lambda of_part=of_part: _findings(subject.psi, points, of_part)


def _findings(psi: Potential, points: Points, of_part: Sequence[Law]) -> list[Finding]:
    dtype = points.triples[0].dtype
    worst = _compiled(lambda *p: [law.worst(psi, *p) for law in of_part], *points.triples)
    found = []
    for law, residual in zip(of_part, np.asarray(worst), strict=True):
        tolerance = np.broadcast_to(
            law.tolerance(dtype, jnp.asarray(points.condition)), residual.shape
        )
        excess = np.where(np.isnan(residual), np.inf, residual / tolerance)
        at = int(np.argmax(excess))
        theta = np.asarray(points.triples[0][at])
        found.append(Finding(law, float(residual[at]), float(tolerance[at]), theta))
    return found


def _compiled(fn: Callable[..., Any], *batch: Any) -> Any:
    """fn over a batch, compiled for once only: what is compiled fast serves better than fast code.

    One point after the other: a batch that LAPACK spreads over threads can wait for itself for ever.
    """
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    options = quick if jax.default_backend() == "cpu" else None
    program = jax.jit(
        lambda *rows: jax.lax.map(lambda row: fn(*row), rows), compiler_options=options
    )
    return program(*batch)


# --- what to say about it ------------------------------------------------------------------------


def concave_words(subject: Subject, points: Points) -> list[str]:
    """Where ψ is not strictly convex, and what that means."""
    bad = np.isnan(points.condition)
    least = np.where(bad[:, None], points.least, np.inf)
    unknown = np.isnan(points.least) & bad[:, None]
    where = np.argmax(unknown) if unknown.any() else np.argmin(least)
    row, column = np.unravel_index(where, least.shape)
    theta, value = points.triples[column][row], points.least[row, column]
    at = f"at θ = {shown(theta)}"
    g = np.asarray(metric(subject.psi, theta))
    if np.isnan(value):
        words = [f"∇²ψ is not a number {at}: {_first_nan(subject.psi, theta)}"]
    elif value < -1e-6 * np.abs(g).max():
        words = [f"ψ is not convex: {at} the least eigenvalue of ∇²ψ is {_number(value, 3)}."]
    else:
        vector = np.linalg.eigh(g)[1][:, 0]
        words = [
            f"ψ is convex but not strictly: {at} the least eigenvalue of ∇²ψ is {_number(value, 1)},"
            f" along {shown(vector)}.",
            "It is flat in that direction, so θ and η do not determine each other. Leave out a"
            " coordinate that the others determine.",
        ]
    return [
        *words,
        f"So {int(bad.sum())} of {len(bad)} triples of points have no metric, and the theorems say"
        " nothing there: they were not looked at.",
    ]


# What a law holds to account of all that a potential may say of itself.
_SUSPECTS = {
    "metric_is_hessian": ("hessian", "to_eta"),
    "metric_is_jacobian": ("hessian",),
    "dual_coordinates_are_gradient": ("to_eta",),
    "involution": ("to_theta",),
    "dual_gradient": ("to_theta",),
    "biorthogonality": ("to_theta",),
    "fenchel_young_equality": ("conjugate",),
    "conjugate_is_maximum": ("conjugate",),
    "gap_is_divergence": ("gap",),
    "convexity": ("divergence",),
    "three_points": ("divergence",),
    "hessian_of_divergence": ("divergence",),
}


def failure_words(subject: Subject, findings: Sequence[Finding], seed: int) -> list[str]:
    """What broke, where, and what to look at first."""
    failed = [finding for finding in findings if not finding.holds]
    psi, first = subject.psi, failed[0]
    names = ", ".join(finding.law.name for finding in failed[:4])
    more = f" and {len(failed) - 4} more" if len(failed) > 4 else ""
    words = [f"first at θ = {shown(first.theta)} (seed {seed}): {names}{more}."]
    broken = {finding.law.name for finding in failed}
    blamed = [
        attribute
        for law, attributes in _SUSPECTS.items()
        if law in broken
        for attribute in attributes
        if knowledge(psi, attribute) is not None
    ]
    numbers = [finding for finding in failed if not np.isnan(finding.residual)]
    if blamed:
        listed = " or ".join(f"`{attribute}`" for attribute in dict.fromkeys(blamed))
        words.append(f"What ψ says of itself does not fit its values: look at {listed} first.")
    elif not numbers:
        words.append(f"Nothing came out but NaN: {_first_nan(psi, jnp.asarray(first.theta))}")
    elif all(finding.residual < 1e3 * finding.tolerance for finding in numbers):
        words.append(
            "By so little that it is rounding: ψ itself loses digits there (a difference of large"
            " numbers, log(1 + x), …), or the points are hard. Try --precision float64."
            if first.law.tolerance(np.float32, 1.0) > 1e-8 and first.theta.dtype == np.float32
            else "By so little that it is probably rounding: ψ itself loses digits there, as a"
            " difference of large numbers does."
        )
    else:
        words.append(
            "By more than rounding. Is ψ smooth there (|θ|, max and clip are not), and does it give"
            " the same value every time?"
        )
    return words


def _first_nan(psi: Potential, theta: Array) -> str:
    """Which of the things that everything is made of is not finite at θ."""
    if not bool(jnp.isfinite(psi(theta))):
        return "ψ(θ) is not finite."
    eta = gradient(psi, theta)
    if not bool(jnp.isfinite(eta).all()):
        return "∇ψ(θ) is not finite."
    if not bool(jnp.isfinite(metric(psi, theta)).all()):
        return "∇²ψ(θ) is not finite, or θ is outside what `in_domain` allows."
    status = Status(int(dual_point(psi, eta, theta).status))
    if status != Status.CONVERGED:
        return f"θ(η), the way back from ∇ψ(θ), ended {status.name}."
    return "a derivative beyond the second is not finite; is ψ smooth there?"


def shown(point: Any) -> str:
    """A point in a few digits: (0.5, −1.25)."""
    return f"({', '.join(_number(x, 4) for x in np.asarray(point))})"


def _number(x: Any, digits: int) -> str:
    return f"{float(x):.{digits}g}".replace("-", "−")
