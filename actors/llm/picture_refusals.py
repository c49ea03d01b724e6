"""How servers say that a model sees no pictures, as patterns for their words in lower case."""

from __future__ import annotations

_NO = r"(not support|n't support|unsupported|unknown|unrecognized|not a multimodal)"
_PICTURE = r"(image|vision|picture)"
#: Of what is about one picture, of whose kind or size they take none: the model sees others.
OF_ONE_PICTURE = (
    r"\bformats?\b|\bmime\b|image/[a-z]|too (large|big|small)|exceed|dimensions?\b|pixels?\b|base64"
)
#: Of what is about all pictures.
SEES_NONE = rf"(?s)^(?!.*({OF_ONE_PICTURE})).*({_NO}.{{0,60}}{_PICTURE}|{_PICTURE}\w*.{{0,60}}({_NO}|mmproj))"
