"""The environment variables that children inherit: an allow list, so that none of our secrets is
among them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

#: User, home and language, and where tools and languages keep what they have installed.
ALLOWED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PKG_CONFIG_PATH"),
        *("VIRTUAL_ENV", "CONDA_PREFIX", "PYENV_ROOT", "NVM_DIR", "NODE_PATH", "JAVA_HOME"),
        *("GOPATH", "GOROOT", "CARGO_HOME", "RUSTUP_HOME", "GEM_HOME"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NIX_SSL_CERT_FILE"),
    }
)


def allowed_environment(
    more: Iterable[str] = (), *, of: Mapping[str, str] | None = None, **own: str
) -> dict[str, str]:
    """The variables of this process (or of the mapping ``of``) that a child may have, those named in ``more``
    as well, and the child's ``own``.
    """
    wanted = ALLOWED.union(more)
    found = os.environ if of is None else of
    chosen = {name: found[name] for name in found if name in wanted or name.startswith("LC_")}
    return {**chosen, **own}
