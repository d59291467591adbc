"""Strangers' words (captions, file names), made fit to be shown."""

from __future__ import annotations

import html


def escaped(text: str, limit: int = 300) -> str:
    """One line of it, as text of a page."""
    return html.escape(one_line(text, limit))


def one_line(text: str, limit: int) -> str:
    """At most `limit` characters on one line, with an ellipsis where something was cut.

    What cannot be printed (control characters, overrides of the writing direction, halves of
    surrogate pairs from file names that are no UTF-8) becomes U+FFFD; joiners that only shape
    their neighbours are left out.
    """
    cut = text[: 4 * limit + 64]  # a caption of megabytes is not worth reading to its end
    words = "".join(_printable(character) for character in cut).split()
    line = " ".join(words)
    if len(line) <= limit and len(cut) == len(text):
        return line
    return line[: limit - 1].rstrip() + "…"


def _printable(character: str) -> str:
    if character.isprintable() or character.isspace():
        return character
    return "" if character in "\u200c\u200d\ufeff\u00ad" else "\ufffd"
