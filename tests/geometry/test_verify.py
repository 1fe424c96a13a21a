"""The command `dualflat verify`: whom it can find, what it says, and its exit status."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualflat import verify

OURS = """
import jax.numpy as jnp
from dualflat.geometry.potentials.entropies import Burg

def psi(theta):
    return jnp.logaddexp(0.0, theta).sum() + 0.5 * theta @ theta

def saddle(theta):
    return theta[0] ** 2 - theta[1] ** 2

def flat(theta):
    return jnp.logaddexp(0.0, theta.sum())

def vector(theta):
    return theta

def two(theta, other):
    return theta @ other

def branch(theta):
    return theta[0] if theta[0] > 0 else -theta[0]

class Wrong(Burg):
    def to_theta(self, eta):
        return super().to_theta(eta) * 1.001

def wrong():
    return Wrong(2)

number = 3.0
"""


@pytest.fixture
def ours(tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text(OURS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("ours", None)


def find(what, dim=None, start=None):
    return verify.find(what, dim=dim, start=start, dtype=np.float32)


@pytest.mark.parametrize("name", verify.NAMED)
def test_every_name_finds_a_potential_and_a_point_of_its_domain(name):
    subject = find(name)
    assert jnp.isfinite(subject.psi(subject.start))
    assert subject.about.partition(":")[0] == type(subject.psi).__name__
    assert verify.draw(subject, 2, seed=1).convex


def test_a_name_takes_a_size():
    assert find("burg:5").start.shape == (5,)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("burgg", "Did you mean burg?"),
        ("burg:x", "'x' is no size. Wanted burg or, for example, burg:3"),
        ("ours:psi", "Say --dim N"),
        ("ours:psy", "has no 'psy'. It has psi"),
        ("oursss:psi", "there is no module 'oursss'"),
        ("ours:number", "is of type float. Wanted: a convex function"),
        ("ours:two", "takes theta, other"),
        ("ours:wrong:x", "is not of the form module:attribute"),
    ],
)
def test_what_cannot_be_found_is_said(ours, what, words):
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        find(what)


@pytest.mark.parametrize(
    ("what", "words"),
    [("ours:vector", "is a .sum.. missing"), ("ours:branch", "Write `jnp.where` instead of `if`")],
)
def test_what_is_no_function_to_a_number_is_said(ours, what, words):
    with pytest.raises(ValueError, match=words):
        find(what, dim=2)


def test_a_dimension_that_does_not_fit_is_said(ours):
    with pytest.raises(ValueError, match="its dimension is 2, but --dim says 3"):
        find("ours:wrong", dim=3)
    with pytest.raises(ValueError, match="--start has 3 numbers, θ has 2"):
        find("ours:wrong", start=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="--start is outside the domain"):
        find("ours:wrong", start=(-1.0, 1.0))


def test_an_error_of_the_users_own_module_is_the_users(ours):
    (ours / "broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        find("broken:psi", dim=1)


@pytest.mark.parametrize(
    ("name", "words"),
    [("saddle", "ψ is not convex"), ("flat", "convex but not strictly")],
)
def test_where_psi_is_not_convex_is_said(ours, name, words):
    subject = find(f"ours:{name}", dim=2)
    points = verify.draw(subject, 4, seed=0)
    assert not points.convex
    assert words in verify.concave_words(subject, points)[0]


def test_laws_are_chosen_by_name_and_by_number():
    def names(*words):
        return [law.name for law in verify.chosen(words)]

    assert names("10") == names("(10)") == ["affine_chart"]
    assert names("pythagoras", "three-points") == ["three_points", "pythagoras"]
    assert len(names("theorem 1")) == 4
    assert len(names()) == len(verify.LAWS)
    with pytest.raises(ValueError, match="Did you mean pythagoras"):
        verify.chosen(["pytagoras"])


def run(*words):
    command = [sys.executable, "-m", "dualflat", "verify", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_laws_that_hold_exit_with_0(ours):
    done = run("ours:psi", "--dim", "2", "--law", "three_points", "8", "--points", "3")
    assert done.returncode == 0, done.stderr
    assert "ηᵢ = ∂ᵢψ(θ)" in done.stdout
    assert "2 of 2 laws hold at 3 triples of points" in done.stdout


def test_a_law_that_fails_exits_with_1_and_names_the_suspect(ours):
    done = run("ours:wrong", "--law", "three_points", "involution", "--points", "3")
    assert done.returncode == 1, done.stderr
    assert "1 of 2 laws fail" in done.stdout
    assert "look at `to_theta` first" in done.stdout


def test_bad_words_exit_with_2_before_anything_is_looked_at():
    done = run("categorial")
    assert done.returncode == 2
    assert "Did you mean categorical?" in done.stderr
    assert not done.stdout


def test_help_opens_no_heavy_room():
    code = (
        "import sys; from dualflat import cli\n"
        "try: cli.main(['verify', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


def test_a_module_of_the_users_may_be_called_as_a_potential_is(tmp_path, monkeypatch):
    (tmp_path / "burg.py").write_text(OURS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert find("burg:psi", dim=2).about == "a function of your own"
    finally:
        sys.modules.pop("burg", None)


def test_a_reader_who_has_seen_enough_ends_it_quietly():
    """As `| head -n 1` does."""
    command = [sys.executable, "-m", "dualflat", "verify", "burg", "--points", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert b"burg" in process.stdout.readline()
        process.stdout.close()  # before the laws are compiled
        assert process.stderr.read() == b""
        assert process.wait(240) == 128 + 13


def test_float32_points_stay_float32_where_float64_is_on(x64):
    """Of every named potential: a numpy constant would have made them float64."""
    for name in verify.NAMED:
        start = verify.find(name, dim=None, start=None, dtype=np.float32).start
        assert start.dtype == jnp.float32, name
        psi = verify.NAMED[name]()
        out = jax.eval_shape(lambda t, psi=psi: (psi(t), jax.grad(psi)(t)), start)
        assert {o.dtype for o in out} == {jnp.dtype("float32")}, name
