"""Numbers that a text holds and nothing else, all at once."""

from __future__ import annotations

import codecs
from typing import Literal

import fastnumbers
import numpy as np
import simdjson

_AS_JSON = bytes(byte if byte in b"0123456789+-.eE" else ord("," if byte in b" \t\r\n\v\f" else "?") for byte in range(256))
_HEAD = 256  # bytes that tell how a text is laid out
_PARSER = simdjson.Parser()  # kept, because its memory is: allocating that anew takes longer than parsing


def utf8(content: bytes) -> bytes:
    """A text in UTF-8 without its mark, whether it was so or, as its mark says, in UTF-16.

    Args:
        content: of a file. What has no mark stays as it is.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace").encode()
    return content.removeprefix(codecs.BOM_UTF8)


def reals(text: bytes) -> np.ndarray | None:
    """(K,) float64, all numbers of a text, or None where it holds anything else.

    Args:
        text: words between blanks and ends of lines.
    """
    parsed = _json_numbers(text, "d")
    if parsed is not None:
        return parsed
    try:
        return fastnumbers.try_array(text.split(), dtype=np.float64)  # type: ignore[reportArgumentType]
    except ValueError:
        return None


def words_of_lines(text: bytes) -> np.ndarray:
    """(L,) how many words each line of a text holds.

    Args:
        text: of lines that end in a line feed, perhaps but the last.
    """
    letters = np.frombuffer(b"\n" + text.removesuffix(b"\n"), np.uint8)
    blank = (letters == 32) | ((letters >= 9) & (letters <= 13))
    begins = np.concatenate([[False], blank[:-1] & ~blank[1:]])
    return np.add.reduceat(begins, np.flatnonzero(letters == 10), dtype=np.int64)


def integers(text: bytes) -> np.ndarray | None:
    """(K,) int64, all numbers of a text, or None where it holds anything else, or one that JSON writes otherwise (`+2`).

    Args:
        text: see `reals`.
    """
    return _json_numbers(text, "i")


def whole(values: np.ndarray) -> np.ndarray | None:
    """(K,) int64, or None where one of these numbers is not whole.

    Args:
        values: (K,) of any type.
    """
    with np.errstate(invalid="ignore"):  # what is no number becomes one, and differs
        made = values.astype(np.int64)
        return made if (made == values).all() else None


def first_broken(values: np.ndarray) -> int:
    """Where the first number stands that is not whole, or that no int64 holds: why `whole` gave None.

    Args:
        values: (K,) of any type.
    """
    with np.errstate(invalid="ignore"):
        return int((values.astype(np.int64) != values).argmax())


def _json_numbers(text: bytes, kind: Literal["d", "i"]) -> np.ndarray | None:
    """All numbers of a text, or None where JSON would write one of them otherwise (`1.`, `+2`, `nan`).

    Between commas the text is a JSON array, and parsers of JSON are the fastest there are: a third of the time of
    fastnumbers, the same numbers.
    """
    listed = text.strip().translate(_AS_JSON)
    # Looking for what most files do not hold takes as long as parsing: the first bytes tell, and else the parser.
    if b",," not in listed[:_HEAD]:
        array = _parsed(listed, kind)
        if array is not None:
            return array
    if b"?" in listed:
        return None
    while b",," in listed:
        listed = listed.replace(b",,", b",")
    return _parsed(listed, kind)


def _parsed(listed: bytes, kind: Literal["d", "i"]) -> np.ndarray | None:
    try:
        array = _PARSER.parse(b"[" + listed + b"]")
        return np.frombuffer(array.as_buffer(of_type=kind), np.float64 if kind == "d" else np.int64)  # type: ignore[reportAttributeAccessIssue]
    except (ValueError, TypeError, RuntimeError):
        return None
