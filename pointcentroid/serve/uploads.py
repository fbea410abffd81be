"""A multipart request -> files in its private folder, counted and timed while they come.

Frameworks have parsers of their own, which write large parts to the common temporary folder and count too late.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from pointcentroid.serve.engine import Engine, Held, Upload, known_suffix
from pointcentroid.serve.limits import MB, RefusalError, ServeSettings, room
from pointcentroid.serve.patience import Body

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_LONGEST_NAME = 120
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_ENCODED_NAME = re.compile(rb";\s*filename\*\s*=\s*(?:([\w-]+)'[^']*'([^;\s]+))?", re.IGNORECASE)  # RFC 5987
_AS_BROWSERS_SEND = {"%22": '"', "%0D": "\r", "%0A": "\n"}  # and nothing else: a name may hold a % of its own
_MOST_FIELDS = 20  # parts that are no files; they are skipped

logging.getLogger("python_multipart").addHandler(logging.NullHandler())  # its remarks on damaged forms are for nobody


@asynccontextmanager
async def accepted(request: Request, engine: Engine, most: int) -> AsyncIterator[list[Upload]]:
    """Receive the files of a request; they are gone when the block ends.

    Args:
        request: of the type multipart/form-data.
        engine: what has the folder, and the limits.
        most: files at most.

    Raises:
        RefusalError: it is too large, too slow, no form or without files, or there is no room.
    """
    body = Body(request.receive, engine.settings)
    try:
        async with engine.admitted() as folder, engine.holding() as held:
            yield await _receive(request, body, folder, held, engine.settings, most)
    except RefusalError as error:
        # Who asked whether to send, and was told no, sends nothing; who is late, or gone, is not waited for.
        if error.status != 408 and (body.received or "expect" not in request.headers):
            await body.drain()
        raise


async def _receive(
    request: Request, body: Body, folder: Path, held: Held, settings: ServeSettings, most: int
) -> list[Upload]:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RefusalError(415, "expected files in a form of the type multipart/form-data")
    too_large = RefusalError(413, f"more than {settings.upload_bytes / MB:g} MB; send less at once")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > settings.upload_bytes:
        raise too_large
    form = _Form(folder, most)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks)
        while (data := await body.next()) is not None:
            if body.received > settings.upload_bytes:
                raise too_large
            held.add(len(data))
            parser.write(data)  # into the cache of the disk: no slower than handing it to another thread
        parser.finalize()
    except FormParserError:
        raise RefusalError(400, "the form is damaged or cut short") from None
    finally:
        form.close()
    if not form.ended:
        raise RefusalError(400, "the form is damaged or cut short")
    if not form.uploads:
        raise RefusalError(400, "the form holds no file")
    return form.uploads


class _Form:
    """What the parser calls: each file goes to the folder, under a number and the suffix of its reader."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self.uploads: list[Upload] = []
        self.ended = False
        self._fields = 0
        self._file: IO[bytes] | None = None
        self._header, self._value, self._disposition = b"", b"", b""
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._part_begins,
            "on_header_field": self._field,
            "on_header_value": self._field_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with room():
                file.close()

    def _part_begins(self) -> None:
        self._disposition = b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _field_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_end(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"filename", b"").decode("utf-8", "replace")
        for sent, meant in _AS_BROWSERS_SEND.items():
            name = name.replace(sent, meant)
        # The parser passes over this form of a name.
        if not name and (encoded := _ENCODED_NAME.search(_QUOTED.sub(b'""', self._disposition))):
            name = _decoded(*encoded.groups(b""))
        if not name:  # a field; or a form's file input that was left empty
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise RefusalError(400, f"more than {_MOST_FIELDS} fields that are no files")
            return
        if len(self.uploads) == self.most:
            raise RefusalError(413, f"more than {self.most} file{'s' * (self.most > 1)}; send fewer at once")
        name = clean_name(name)
        path = None
        if suffix := known_suffix(name):
            # A folder each: a glTF file may name others in its folder.
            own = self.folder / str(len(self.uploads))
            path = own / f"shape{suffix}"
            with room():
                own.mkdir()
                self._file = path.open("wb")
        self.uploads.append(Upload(name, path))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            with room():
                self._file.write(data[start:end])

    def _end(self) -> None:
        self.ended = True


def _decoded(encoding: bytes, name: bytes) -> str:
    """A name in an encoding; a name of a file in any case, for that it was meant to be."""
    try:
        return unquote_to_bytes(name).decode(encoding.decode("ascii"), "replace") or "unnamed"
    except (LookupError, UnicodeError):
        return unquote_to_bytes(name).decode("latin-1") or "unnamed"


def clean_name(name: str) -> str:
    """A client's name for a file -> something to show: no folders, nothing that does not print, not long."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(c for c in last if c.isprintable()).strip()[-_LONGEST_NAME:]
    return shown if shown.strip(".") else "unnamed"
