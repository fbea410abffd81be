"""Text in and out, whatever the encoding of a terminal or pipe, and whatever bytes the names of files are."""

from __future__ import annotations

import codecs
import io
import sys


def accept_all_text() -> None:
    """Let standard output and error take any text, and standard input any bytes, whatever encoding they have."""
    codecs.register_error("pointcentroid", _shown)
    for stream, errors in ((sys.stdout, "pointcentroid"), (sys.stderr, "pointcentroid"), (sys.stdin, "surrogateescape")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks; bytes of file names, which Python reads as surrogates, stay."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    if all("\udc80" <= character <= "\udcff" for character in lacking):
        return bytes(ord(character) - 0xDC00 for character in lacking), error.end
    return "".join("#" if "\u2580" <= character <= "\u259f" else "?" for character in lacking), error.end
