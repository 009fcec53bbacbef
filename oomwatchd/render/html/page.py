"""The page around the views: one template, one style, one script, and the policy that allows just these.

Each text that a template prints goes through two filters, whatever it is: what is not plainly visible is
spelled out (:func:`oomwatchd.words.escape.harmless`), then ``<>&"'`` are escaped.

Core: no clock, no file, no socket; the templates are part of the package.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from oomwatchd import __version__
from oomwatchd.render.html.sections.shown import EventView
from oomwatchd.words.escape import harmless


def render(views: Sequence[EventView]) -> str:
    """The whole page."""
    environment = _environment()
    style, script = (_part(environment, name) for name in ("report.css", "report.js"))
    return environment.get_template("page.html.j2").render(
        views=views, style=style, script=script, policy=_policy(style, script), version=__version__
    )


def policy() -> str:
    """The policy of every page (Content-Security-Policy), for who serves it with headers."""
    environment = _environment()
    return _policy(_part(environment, "report.css"), _part(environment, "report.js"))


_LOADER = PackageLoader("oomwatchd.render.html", "parts")


@cache
def _environment() -> Environment:
    return Environment(
        loader=_LOADER,
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )


def _harmless(value: object) -> object:
    """What a template prints: markup of our own as it is, all else made harmless."""
    return value if isinstance(value, Markup) else harmless(str(value))


def _part(environment: Environment, name: str) -> Markup:
    """Our own style or script, as it stands in the page."""
    return Markup(_LOADER.get_source(environment, name)[0])  # noqa: S704 (ships with the package)


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy (CSP level 3): nothing but this style and this script."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
