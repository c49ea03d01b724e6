"""What an installation may lack: it is looked for, not imported, which would take each worker half a second."""

from importlib.util import find_spec

import pytest


def skip_without(library: str, extra: str) -> None:
    """Leave out all tests of the module that calls it where the library of an extra is not installed."""
    if find_spec(library) is None:
        pytest.skip(f"the extra {extra} is not installed", allow_module_level=True)
