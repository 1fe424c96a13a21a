"""How the pages are built: `sphinx-build -W docs docs/_build` (extra `docs`)."""

from dualflat import __version__

project = "dualflat"
author = "the dualflat authors"
release = version = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # what the pages show is run by the tests
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = f"dualflat {release}"
html_static_path = []


def _as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are plain text: `|x|` is an absolute value, and rows of bars are a table."""
    found = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.strip().startswith("|"):
            found.append(line.replace("|", "\\|"))
        elif set("".join(cells)) <= {"-", ":"}:
            found.pop()  # the header, which stands above this row
        else:
            found.append(f"- {cells[0]}: {' '.join(cells[1:])}")
    lines[:] = found


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _as_restructured_text, priority=400)
