"""How the documentation is built: ``make docs`` writes it to ``build/docs``."""

from importlib.metadata import version as _version

project = "polypod"
release = version = _version("polypod")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = "polypod"
exclude_patterns = ["build"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
