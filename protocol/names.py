"""Names of pods: what one may be, checked wherever one comes in."""

from __future__ import annotations

import re

from protocol.errors import ManifestError
from protocol.foreign import shown

_LONGEST = 254
#: Letters and digits of any script, and what an e-mail address has besides. No blank, no slash, no control
#: character: a name stands in file names, URLs and on lines of its own.
_NAME = re.compile(r"[\w.@+'-]{1,254}")
_EXPECTED = "expected 1 to 254 letters, digits, '.', '_', '-', '+', '@' or an apostrophe"


def check_name(name: object, where: str) -> None:
    """Raise ManifestError, which begins with ``where``, if a pod cannot be called ``name``."""
    if not isinstance(name, str) or not (_NAME.fullmatch(name) or _has_marks(name)) or not name.strip("."):
        raise ManifestError(f"{where}: {_EXPECTED}, got {shown(name, 300)}")


def _has_marks(name: str) -> bool:
    """Whether it is a name of letters with marks, as vowels are in many scripts, and accents of a name in
    decomposed form.
    """
    import unicodedata  # noqa: PLC0415 - paid for by whoever has such a name

    plain = "".join(each for each in name if not unicodedata.category(each).startswith("M"))
    return len(name) <= _LONGEST and name[:1] == plain[:1] and bool(_NAME.fullmatch(plain))
