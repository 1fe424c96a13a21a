"""What is public has words, and no text speaks of the machine it was written on."""

import ast
import re
from pathlib import Path

import pytest

import dualflat

ROOT = Path(__file__).parents[2]
PACKAGE = Path(dualflat.__file__).parent
TEXT = {".py", ".md", ".toml", ".sh", ".yaml", ".yml", ".cff", ".txt", ".json", ".cfg"}
# Built from pieces, so that this file does not hold what it looks for.
PLACES = re.compile(r"(?<![\w.])/" + r"(?:work|tmp|root|home)/")


def undocumented(tree, inside=""):
    """Names of public functions, classes and methods without a docstring."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None and not overloaded(node):
                found.append(inside + node.name)
            if isinstance(node, ast.ClassDef):
                found += undocumented(node, f"{inside}{node.name}.")
    return found


def overloaded(node):
    return any(ast.unparse(d).split(".")[-1] in ("overload", "setter") for d in node.decorator_list)


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_what_is_public_has_words(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if tree.body:
        assert ast.get_docstring(tree), f"{file.name} does not say what it is for"
    assert not undocumented(tree)


def test_what_has_no_words_is_found():
    """The control."""
    source = "def f(): pass\nclass A:\n  'A.'\n  def g(self): pass\n  def _h(self): pass\n"
    assert undocumented(ast.parse(source)) == ["f", "A.g"]


def texts():
    """Every text file of the project, as far as it is here (the tests may run from a part of it)."""
    folders = [
        PACKAGE,
        *(ROOT / name for name in ("tests", "examples", "docs", "benchmarks", ".ci")),
    ]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.rglob("*"))]
    files += sorted(file for file in ROOT.iterdir() if file.is_file())
    hidden = {"__pycache__", "_build"}
    return [
        file
        for file in files
        if file.is_file()
        and not hidden & set(file.parts)
        and (file.suffix in TEXT or file.parent.name == ".ci")
    ]


def places(text):
    """Lines that name a folder of one machine."""
    return [line.strip() for line in text.splitlines() if PLACES.search(line)]


def test_no_text_names_a_folder_of_one_machine():
    files = texts()
    assert {"README.md", "pyproject.toml", "cli.py", "01_three_minute_recipe.py"} <= {
        file.name for file in files
    }
    found = {
        str(file): lines for file in files if (lines := places(file.read_text(encoding="utf-8")))
    }
    assert not found


def test_such_a_folder_is_found():
    """The control."""
    line = "data = '/" + "work/shared/x'"
    assert places(f"a\n{line}\nb/work/c") == [line]
    assert not places("https://example.org/work/x and /usr/share/x")
