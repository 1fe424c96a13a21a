"""The import contracts of pyproject.toml, read from the source: also inside functions, and without
import-linter, so that they hold wherever the tests run.
"""

import ast
import tomllib
from pathlib import Path

import pytest

import dualflat

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]
FORBIDDEN = [contract for contract in SETTINGS["contracts"] if contract["type"] == "forbidden"]
LAYERS = [contract for contract in SETTINGS["contracts"] if contract["type"] == "layers"]


def imports(package):
    """Module → the modules it imports anywhere in its source; those of the package by full name."""
    root = Path(package).parent
    files = {}
    for file in Path(package).rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    found = {}
    for module, file in files.items():
        inside = module if file.name == "__init__.py" else module.rpartition(".")[0]
        found[module] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[module].update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = inside.split(".")[: len(inside.split(".")) - node.level + 1]
                    base = ".".join([*above, *([base] if base else [])])
                deeper = [f"{base}.{alias.name}" for alias in node.names]
                found[module].update(name if name in files else base for name in deeper)
    return found


def within(module, package):
    return module == package or module.startswith(f"{package}.")


def reached(graph, source, *, indirect):
    """(importer, imported) for every import that `source` makes, by itself or through its own."""
    done, waiting, pairs = set(), [module for module in graph if within(module, source)], set()
    while waiting:
        module = waiting.pop()
        if module in done:
            continue
        done.add(module)
        for imported in graph[module]:
            pairs.add((module, imported))
            if indirect and imported in graph:
                waiting.append(imported)
    return pairs


def broken(graph, contract):
    """The imports that break a `forbidden` contract."""
    indirect = contract.get("allow_indirect_imports") != "true"
    return sorted(
        pair
        for source in contract["source_modules"]
        for pair in reached(graph, source, indirect=indirect)
        for forbidden in contract["forbidden_modules"]
        if within(pair[1], forbidden)
    )


def upward(graph, contract):
    """The imports from a lower layer into a higher one, or between two that share a layer."""
    (container,) = contract["containers"]
    height, layers = {}, contract["layers"]
    for k, layer in enumerate(layers):
        for name in layer.split("|"):
            height[f"{container}.{name.strip()}"] = len(layers) - k
    bad = []
    for layer, level in height.items():
        for importer, imported in reached(graph, layer, indirect=True):
            for other, above in height.items():
                if other != layer and above >= level and within(imported, other):
                    bad.append((importer, imported))
    return sorted(set(bad))


@pytest.fixture(scope="module")
def graph():
    return imports(Path(dualflat.__file__).parent)


def test_the_source_was_read(graph):
    assert "dualflat.contracts" in graph["dualflat.runtime.sync"]
    assert "dualflat.runtime.placement" in graph["dualflat.cli"], "an import inside a function"
    assert len(graph) > 30


@pytest.mark.parametrize("contract", FORBIDDEN, ids=lambda contract: contract["name"])
def test_no_import_crosses_a_wall(graph, contract):
    for source in contract["source_modules"]:
        assert any(within(module, source) for module in graph), (
            f"{source} is gone: mend pyproject.toml"
        )
    assert not broken(graph, contract)


@pytest.mark.parametrize("contract", LAYERS, ids=lambda contract: contract["name"])
def test_no_import_climbs(graph, contract):
    assert not upward(graph, contract)


def test_what_crosses_is_found(tmp_path):
    """The control: one import of each kind that is forbidden, and one that is not."""
    sources = {
        "__init__.py": "",
        "geometry/__init__.py": "",
        "geometry/low.py": "import jax\n",
        "geometry/side.py": "def f():\n    from . import low\n",
        "geometry/high.py": "from house.geometry import low\n",
        "learn/__init__.py": "",
        "learn/a.py": "def f():\n    import orbax.checkpoint\n",
        "learn/b.py": "from house.learn import a\n",
        "runtime/__init__.py": "",
        "runtime/a.py": "from ..learn import b\n",
    }
    for name, text in sources.items():
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text(text, encoding="utf-8")
    graph = imports(tmp_path / "house")

    def wall(source, *forbidden, **more):
        return broken(
            graph, {"source_modules": [source], "forbidden_modules": list(forbidden), **more}
        )

    assert wall("house.learn", "orbax") == [("house.learn.a", "orbax.checkpoint")]
    assert wall("house.runtime", "orbax") == [("house.learn.a", "orbax.checkpoint")]
    assert not wall("house.runtime", "orbax", allow_indirect_imports="true")
    assert wall("house.runtime", "house.learn", allow_indirect_imports="true")
    assert not wall("house.geometry", "optax", "house.learn")
    layers = {"containers": ["house.geometry"], "layers": ["high", "low | side"]}
    assert upward(graph, layers) == [("house.geometry.side", "house.geometry.low")]
    assert not upward(graph, layers | {"layers": ["high", "side", "low"]})
