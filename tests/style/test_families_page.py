"""The page of the families: its session prints what it shows, and its table leaves no family out."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import dualflat.geometry.families
from tests.style.test_readme import blocks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
MODULES = sorted(Path(dualflat.geometry.families.__file__).parent.glob("[a-z]*.py"))


def families(module):
    """Classes of laws that a module defines: they can draw, and can be made."""
    return {
        name
        for name, one in vars(module).items()
        if inspect.isclass(one)
        and one.__module__ == module.__name__
        and not name.startswith("_")
        and not inspect.isabstract(one)
        and hasattr(one, "draw")
        and not getattr(one, "_is_protocol", False)
    }


@pytest.mark.slow
def test_the_session_prints_what_it_shows():
    session = "".join(blocks(PAGE, "python"))
    test = doctest.DocTestParser().get_doctest(session, {}, "families.md", "families.md", 0)
    assert len(test.examples) > 30
    said = []
    with np.printoptions():  # the session sets them; they come back
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_every_family_is_in_the_table_and_among_the_names(file):
    module = import_module(f"dualflat.geometry.families.{file.stem}")
    named = set(re.findall(r"\w+", (ROOT / "docs" / "api.md").read_text(encoding="utf-8")))
    rows = {
        name
        for line in PAGE.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)\(", line.split(" | ")[0])
    }
    for name in families(module):
        assert name in named, f"docs/api.md does not name {name}"
        assert name in rows or name == "FromStatistics", f"docs/families.md has no row for {name}"


def test_the_usual_parameters_are_named_as_they_are():
    """The words in the column `from_usual` are its arguments."""
    named = {}
    for line in PAGE.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if line.startswith("| `") and len(cells) == 10:
            for name in re.findall(r"`(\w+)\(", cells[1]):
                named[name] = set(re.findall(r"`([a-z_]+)`", cells[7]))
    checked = 0
    for file in MODULES:
        module = import_module(f"dualflat.geometry.families.{file.stem}")
        for name in families(module) & set(named):
            wanted = list(inspect.signature(getattr(module, name).from_usual).parameters)[1:]
            if wanted and wanted[0] not in ("args", "parameters"):
                assert named[name] == set(wanted), (name, named[name], wanted)
                checked += 1
    assert checked > 30
