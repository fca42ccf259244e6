"""The site: ``sphinx-build -W --keep-going -b html docs build/site``. It needs no network, and neither do its pages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package and its recipes as they are here, and docs/_ext

project = "avatar"
author = "the authors of avatar-toolkit"
release = version = re.search(r'__version__ = "(.+)"', (ROOT / "avatar/__init__.py").read_text(encoding="utf-8"))[1]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
extensions += ["docs._ext.pages", "docs._ext.docstrings", "docs._ext.accessible"]
root_doc = "index"
exclude_patterns = ["_ext"]

# Pages are written for a code host as well: anchors are made as it makes them, and code blocks have its names.
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
highlight_language = "text"
smartquotes = False  # -- begins an option

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
default_role = "code"  # docstrings write `names` with single quotes
napoleon_google_docstring, napoleon_numpy_docstring, napoleon_use_ivar = True, False, True
napoleon_attr_annotations = False  # signatures have the types, whose shapes may hold an asterisk

html_theme = "furo"
html_title = f"avatar {release}"
html_copy_source = False
html_static_path, html_css_files = ["_static"], ["tables.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
