"""The published JSON Schema: current, and true of every event that recorded kernels give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from oomwatchd.event import conclude
from oomwatchd.render.json import encode
from oomwatchd.render.schema import document, event_schema
from tests.recorded import captures, kernel_recordings, kinds, logs
from tests.samples import event

PUBLISHED = Path(__file__).resolve().parent.parent / "docs" / "event.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(PUBLISHED.read_bytes())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_published_schema_is_current() -> None:
    message = "run: python -m tools.generate"
    # as values: the order of keys differs between versions of msgspec
    assert json.loads(PUBLISHED.read_bytes()) == json.loads(document()), message


def test_every_event_of_the_corpus_is_valid(validator: Draft202012Validator, corpus: Path) -> None:
    seen = 0
    for path in (*kernel_recordings(corpus), *logs(corpus)):
        for one in kinds(path):
            seen += 1
            validator.validate(json.loads(encode(one)))
    assert seen > 150


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kills",), "1"),
        (("kind",), "oom_party"),
        (("schema",), "oomwatchd.event.v2"),
        (("victims", 0, "comm"), None),
        (("victims", 0, "role"), "bystander"),
        (("trigger", "gfp_flags"), "GFP_KERNEL"),
        (("time", "wall"), 12),
    ],
)
def test_what_is_no_event_is_refused(
    validator: Draft202012Validator, path: tuple[str | int, ...], value: object
) -> None:
    document: Any = json.loads(encode(event()))
    validator.validate(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValidationError):
        validator.validate(document)


def test_absent_is_null_not_left_out(validator: Draft202012Validator) -> None:
    document = json.loads(encode(event()))
    for name in event_schema()["properties"]:
        assert name in document
        with pytest.raises(ValidationError, match="required"):
            validator.validate({key: value for key, value in document.items() if key != name})


def test_names_of_the_kernels_own_choice_are_amounts(validator: Draft202012Validator, corpus: Path) -> None:
    seed = next(path for path in logs(corpus) if path.name.startswith("mips"))
    document = json.loads(encode(conclude(captures(seed)[0]).event))
    document["memory"]["zones"][0]["from_a_later_kernel_bytes"] = 4096
    validator.validate(document)
    document["memory"]["zones"][0]["from_a_later_kernel_bytes"] = "4096"
    with pytest.raises(ValidationError):
        validator.validate(document)
