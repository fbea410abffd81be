"""Text in and out, whatever the encoding of a terminal or pipe, and whatever bytes the names of files are."""

from __future__ import annotations

import codecs
import io
import os
import sys


def accept_all_text() -> None:
    """Let standard output and error take any text, and standard input any bytes, whatever encoding they have."""
    codecs.register_error("pointcentroid", _shown)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="pointcentroid")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # What is read there are names of files; on Windows, other programs write them as the console does.
        names = sys.getfilesystemencoding() if os.name == "posix" else None
        sys.stdin.reconfigure(encoding=names, errors="surrogateescape")


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks; bytes of file names, which Python reads as surrogates, stay."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    if all("\udc80" <= character <= "\udcff" for character in lacking):
        return bytes(ord(character) - 0xDC00 for character in lacking), error.end
    return "".join("#" if "\u2580" <= character <= "\u259f" else "?" for character in lacking), error.end
