"""Makes HTML Markdown, as a program of its own: a small page may take any memory and time.

It reads a page from its standard input. Its arguments: where the library is, the address of the page, and the
most bytes to write. It imports nothing else of ours.
"""

from __future__ import annotations

import resource
import sys

#: Of memory, in bytes, and of the processor, in seconds.
_MOST_MEMORY, _MOST_SECONDS = 2**30, 20


def main(library: str, url: str, most: str) -> None:
    """Write the page as Markdown, with absolute links, without navigation, forms and pictures in it."""
    for what, limit in (
        (resource.RLIMIT_AS, _MOST_MEMORY),
        (resource.RLIMIT_CPU, _MOST_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    sys.path.insert(0, library)
    import html_to_markdown  # noqa: PLC0415 - within the limits

    options = html_to_markdown.ConversionOptions(
        extract_metadata=False, base_url=url, inline_data_media="alt_text_only"
    )
    result = html_to_markdown.convert(sys.stdin.buffer.read().decode(), options)
    text: str = (result.content or "").strip()
    lost = [
        f"[part of the page could not be converted to Markdown: {each.message}]" for each in result.warnings
    ]
    shown = "\n\n".join([text, *lost[:3]]) if text or lost else ""
    sys.stdout.buffer.write(shown[: int(most)].encode("utf-8", "replace")[: int(most)])


if __name__ == "__main__":
    main(*sys.argv[1:])
