"""Pictures as models are sent them: of what kind they are, and whether they can be one at all."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.items import ImagePart

#: How files of the kinds that models see begin.
_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


def media_type(data: bytes) -> str | None:
    """The kind of picture that bytes are, by how they begin; None where they are none that models see."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _BEGINNINGS.items() if data.startswith(start)), None)


def sound_picture(part: ImagePart) -> ImagePart | None:
    """The picture as servers take it: with the media type that its data have, and nothing but base64 in them;
    None for one that no server takes, since it has no data, or its data are not base64. Servers refuse each
    request that holds one.
    """
    if part.url:
        return part
    data = part.data or ""
    if data.startswith("data:"):
        return replace(part, data=None, url=data)
    import binascii  # noqa: PLC0415 - paid for by whoever shows one

    data = "".join(data.split())
    try:
        raw = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:  # also for what is not ASCII
        return None
    if not raw:
        return None
    kind = media_type(raw) or part.media_type
    return part if (data, kind) == (part.data, part.media_type) else replace(part, data=data, media_type=kind)
