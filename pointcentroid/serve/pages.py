"""The pages: one to drop files on, one that lists the routes, and what a browser is told when something fails."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import cache
from importlib.resources import files
from typing import Any

EXPLANATION_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Of the page of centroids: its scripts stand in it, and what they can reach is nothing, this server included."""

_LIST = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pointcentroid: the API</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 46rem; color: #1c1c22; }
  h2 { font-size: 1.05rem; margin: 1.6rem 0 .2rem; }
  table { border-collapse: collapse; }
  td { padding: .15rem .8rem .15rem 0; vertical-align: top; }
  code, pre { font: .9em/1.4 ui-monospace, monospace; }
  pre { background: #f3f4f7; padding: .6rem .8rem; overflow-x: auto; }
</style>
<h1>The API</h1>
<p>Also as <a href="openapi.json">OpenAPI</a>. Back to <a href=".">the page</a>.</p>
<pre>curl -F files=@chair.off -F files=@lamp.glb '{{URL}}classify?top=3'</pre>
{{ROUTES}}
</html>
"""


@cache
def page() -> tuple[str, str]:
    """The page to drop files on, and the policy that allows its own script and style, by their hashes, and no others."""
    text = (files("pointcentroid.serve") / "page.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hash(text, 'script')}; style-src {_hash(text, 'style')}; img-src data:; "
        "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return text, policy


def api_page(schema: dict[str, Any], url: str) -> tuple[str, str]:
    """The routes of an OpenAPI schema, for people, without the scripts that such pages usually fetch; and its policy.

    Args:
        schema: of the application.
        url: where it is served.
    """
    routes = []
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            rows = "".join(_parameter(parameter) for parameter in route.get("parameters", []))
            head = f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
            routes.append(f"{head}<p>{_prose(route.get('description', ''))}</p><table>{rows}</table>")
    text = _LIST.replace("{{ROUTES}}", "\n".join(routes)).replace("{{URL}}", html.escape(url))
    policy = f"default-src 'none'; style-src {_hash(text, 'style')}; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    return text, policy


def _prose(text: str) -> str:
    return re.sub("`(.*?)`", r"<code>\1</code>", html.escape(text))


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    allowed = ", ".join(map(str, schema.get("enum", []))) or f"{schema.get('minimum', '')} to {schema.get('maximum', '')}"
    default = f"{allowed}; {schema['default']} if left out" if "default" in schema else ""
    return (
        f"<tr><td><code>{html.escape(parameter['name'])}</code><td>{html.escape(parameter.get('description', ''))}"
        f"<td>{html.escape(default)}"
    )


def failure_page(message: str) -> str:
    """One line, for a browser that expects a page."""
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>no</title><p>{html.escape(message)}</p></html>'


@cache
def examples() -> dict[str, bytes]:
    """Files to try, by name."""
    folder = files("pointcentroid.serve") / "examples"
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir(), key=lambda file: file.name)}


def _hash(text: str, tag: str) -> str:
    inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    assert inside is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()}'"
