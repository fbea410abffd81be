"""What stands before the routes: headers that every answer carries, and hosts that are answered."""

from __future__ import annotations

import ipaddress
import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer; pages bring a policy of their own. None allows other sites anything: there is no CORS."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host that is listened on."""
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Adds `HEADERS`, and refuses what a page of another site has a visitor's browser send.

    Args:
        app: the routes.
        loopback: whether the server listens on the loopback only. It then answers to the names of the loopback alone: a
            foreign name that was made to lead here ("DNS rebinding") would be another site's way in.
    """

    def __init__(self, app: ASGIApp, loopback: bool) -> None:
        self.app, self.loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if problem := self._problem(Headers(scope=scope)):
            body = json.dumps({"error": problem}).encode()
            head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await with_headers({"type": "http.response.start", "status": 403, "headers": head})
            await with_headers({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, with_headers)

    def _problem(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.loopback and not is_loopback(name.strip("[]")):
            return "this server answers to localhost only"
        # Browsers say so over https and on the loopback; elsewhere only what page sends a form.
        site, origin = headers.get("sec-fetch-site"), headers.get("origin", "")
        foreign = bool(origin) and origin.partition("://")[2].lower() != host.lower()
        if site in ("cross-site", "same-site") or (site is None and foreign):
            return "other sites may not use this server"
        return None
