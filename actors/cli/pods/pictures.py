"""Pictures that go with words to a model: files of this machine, or addresses."""

from __future__ import annotations

import base64
import os

from actors.cli.display.format import size
from protocol.errors import InvalidInput
from protocol.files import read_file
from protocol.items import ImagePart
from protocol.pictures import media_type

#: The largest file that servers take, in bytes.
LARGEST = 20 * 1024 * 1024


def picture(place: str) -> ImagePart:
    """The picture at a path or an ``http`` address. Raises InvalidInput for a file that is none."""
    if place.startswith(("http://", "https://")):
        return ImagePart(url=place)
    try:
        data = read_file(os.path.expanduser(place), LARGEST + 1, pipes=True)  # noqa: PTH111 - refuses no name
    except OSError as error:
        raise InvalidInput(f"the image {place} cannot be read: {error.strerror}") from error
    return picture_of(data, place)


def picture_of(data: bytes, name: str) -> ImagePart:
    """The picture that ``data`` is. Raises InvalidInput."""
    kind = media_type(data)
    if kind is None:
        raise InvalidInput(
            f"{name} is not an image that models accept",
            hint="convert it to PNG, JPEG, GIF or WebP",
        )
    if len(data) > LARGEST:
        raise InvalidInput(
            f"{name} is larger than {size(LARGEST)}", hint="make it smaller: servers would refuse it"
        )
    return ImagePart(kind, base64.b64encode(data).decode())
