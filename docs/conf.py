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
