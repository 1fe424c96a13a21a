"""The front door: every name is there, nothing heavy comes along, and a wrong name is answered."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dualflat as df


def test_every_name_resolves_and_is_what_it_says():
    for name in df.__all__:
        value = getattr(df, name)
        assert value.__name__ == name
        assert value.__module__.startswith("dualflat.geometry.")


def test_dir_lists_every_name_before_it_is_asked_for():
    program = "import dualflat as df; print(set(df.__all__) <= set(dir(df)), 'bregman' in vars(df))"
    assert _run(program).split() == ["True", "False"]


def test_the_three_lists_agree():
    """What type checkers read, what runs, and what is promised are the same names."""
    tree = ast.parse(Path(df.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    read = {
        (node.module.removeprefix("dualflat.geometry."), alias.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert read == {(home, name) for home, names in df._HOMES.items() for name in names}
    assert sorted(name for _, name in read) == sorted(df.__all__)


def test_an_unknown_name_is_an_attribute_error_with_words():
    with pytest.raises(AttributeError, match=r"dualflat has no 'nonsense'.*bregman.*own module"):
        df.nonsense  # noqa: B018
    assert not hasattr(df, "nonsense")
    with pytest.raises(ImportError, match="nonsense"):
        from dualflat import nonsense  # noqa: F401


def test_the_version_is_the_one_of_the_package():
    from dualflat._version import __version__

    assert df.__version__ == __version__


PROGRAM = """
import sys
import dualflat, dualflat.cli
dualflat.cli.build_parser().format_help()
print(sorted({"jax", "numpy", "optax", "flax", "orbax"} & set(sys.modules)))
dualflat.bregman
from jax._src import xla_bridge
print(sorted({"optax", "flax", "orbax"} & set(sys.modules)), xla_bridge.backends_are_initialized())
import jax.numpy as jnp
jnp.zeros(2)
print(xla_bridge.backends_are_initialized())
"""


def test_importing_loads_no_jax_and_the_first_name_starts_no_device():
    """The last line is the control: the question can be answered with yes."""
    assert _run(PROGRAM).split("\n")[:3] == ["[]", "[] False", "True"]


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout
