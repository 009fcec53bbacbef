"""Patterns that are compiled when they are first used."""

from __future__ import annotations

import gc
import pkgutil
import re
from importlib import import_module

import pytest

import oomwatchd
from oomwatchd.words.deferred import deferred


def test_it_is_the_pattern() -> None:
    later, now = deferred(r"(?P<a>\d+)-(b)?", re.ASCII), re.compile(r"(?P<a>\d+)-(b)?", re.ASCII)
    text = "x 12-b 3- y"
    assert later.search(text) is not None and later.match(text) is None
    assert later.findall(text) == now.findall(text) and later.sub("z", text) == now.sub("z", text)
    assert later.groupindex == now.groupindex and later.pattern == now.pattern and later.flags == now.flags
    assert [m.span() for m in deferred(rb"\d").finditer(text.encode())] == [(2, 3), (3, 4), (7, 8)]
    with pytest.raises(AttributeError):
        later.no_such_method  # type: ignore[attr-defined]  # noqa: B018


def test_every_pattern_of_the_package_compiles() -> None:
    for module in pkgutil.walk_packages(oomwatchd.__path__, "oomwatchd."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    kind = type(deferred("a"))
    found = [one for one in gc.get_objects() if type(one) is kind]
    assert len(found) > 200
    for pattern in found:
        re.compile(pattern.pattern, pattern.flags)
