"""Names of MCP tools as models see them, pure: legal for every provider, and the same in every list."""

from __future__ import annotations

import re
from hashlib import sha256

_LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST = 64
_DIGITS = 8


def tool_name(server: str, tool: str) -> str:
    """``server__tool``. A tool whose name is too long, or has characters that no provider takes, gets a
    digest of it behind what is left: so two tools never come to have one name, whatever else is listed.
    """
    plain = f"{server}__{tool}"
    if _LEGAL.fullmatch(plain):
        return plain
    digest = sha256(tool.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", tool)[: _LONGEST - len(server) - _DIGITS - 3]
    return f"{server}__{kept}_{digest}"
