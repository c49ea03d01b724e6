"""The example programs of the documentation, as tests use them."""

import importlib.util
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).parents[1] / "docs" / "examples"


def loaded(name: str) -> ModuleType:
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DatabaseStore = loaded("database_store").DatabaseStore
LinesClient = loaded("lines_client").LinesClient
TableTools = loaded("table_tools").TableTools
