"""Compares the variables of a command with those of a swarm's service, by digests of their values."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping

#: What logs in, says where servers are, and where programs are found.
_MATTERS = re.compile(r"PATH|VIRTUAL_ENV|CONDA_PREFIX|\w+_(?:KEY|TOKEN|BASE_URL|ENDPOINT|HOST|PROXY|proxy)")


def digests_of(environment: Mapping[str, str]) -> dict[str, str]:
    """A digest of each variable that matters to agents."""
    return {
        name: hashlib.sha256(os.fsencode(value)).hexdigest()
        for name, value in environment.items()
        if _MATTERS.fullmatch(name)
    }


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """The names whose digests are not the same, or that only one of both has."""
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
