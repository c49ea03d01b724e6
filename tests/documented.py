"""The example programs of the documentation, as tests use them."""

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parents[1] / "docs" / "examples" / "database_store.py"
_SPEC = importlib.util.spec_from_file_location("database_store", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

DatabaseStore = _MODULE.DatabaseStore
