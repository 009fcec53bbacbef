"""What is sent, read by the official libraries of CloudEvents and OpenTelemetry. Debian has neither, so these
tests are skipped with Debian's own modules."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cloudevents")
pytest.importorskip("opentelemetry.proto")

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from google.protobuf.json_format import Parse
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from oomwatchd.event import conclude
from oomwatchd.render.json import encode
from oomwatchd.sinks import SinkError, otlp
from oomwatchd.sinks._protobuf import EXPORT_LOGS_SERVICE_REQUEST
from oomwatchd.sinks._protobuf import encode as encode_protobuf
from oomwatchd.sinks.webhook import Options, Webhook
from tests.delivery.receivers import Receiver
from tests.recorded import captures, kernel_recordings
from tests.samples import WALL, event
from tests.test_sinks import HOSTILE


def test_a_cloud_event_as_the_official_library_reads_it(plain: Receiver) -> None:
    Webhook(Options(url=plain.url, link="https://x/${id}")).deliver([event()])
    [request] = plain.requests
    message = HTTPMessage(headers=request.headers, body=request.body)
    read = from_structured_event(message, JSONFormat())
    assert (read.get_id(), read.get_type(), read.get_specversion()) == (
        event().id,
        "oomwatchd.oom_kill",
        "1.0",
    )
    assert read.get_source() == f"//{socket.gethostname()}/oomwatchd"
    assert read.get_subject() == "web.service"
    assert read.get_time() == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
    assert read.get_extension("severity") == "warning"
    assert read.get_extension("link") == f"https://x/{event().id}"
    data = read.get_data()
    assert isinstance(data, dict)
    assert data["id"] == event().id
    assert data["victims"][0]["comm"] == "stress"
    assert request.headers["webhook-id"] == event().id


# -- OpenTelemetry -------------------------------------------------------------------------------------


def test_the_official_definitions_read_the_otlp_request(plain: Receiver) -> None:
    options = otlp.Options(url=f"{plain.url}/", resource_attributes={"deployment.environment.name": "lab"})
    hostile = [event(number, comm=comm) for number, comm in enumerate(HOSTILE)]
    otlp.Otlp(options, clock=lambda: WALL).deliver([event(), *hostile])
    [request] = plain.requests
    assert (request.path, request.headers["content-type"]) == ("/v1/logs", "application/x-protobuf")
    read = ExportLogsServiceRequest.FromString(request.body)
    [resource] = read.resource_logs
    about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert about["host.name"] == socket.gethostname()
    assert (about["service.name"], about["deployment.environment.name"]) == ("oomwatchd", "lab")
    records = resource.scope_logs[0].log_records
    record = records[0]
    assert (record.severity_number, record.severity_text) == (13, "WARN")
    assert record.time_unix_nano == 1_790_000_000 * 10**9
    assert record.event_name == "oomwatchd.oom_kill"
    assert record.body.string_value == event().summary
    named = {pair.key: pair.value for pair in record.attributes}
    assert named["log.record.uid"].string_value == event().id
    assert named["process.pid"].int_value == 4242
    assert named["oomwatchd.victim.anon_rss_bytes"].int_value == 64 << 20
    assert named["oomwatchd.complete"].bool_value is True
    assert [v.string_value for v in named["oomwatchd.findings"].array_value.values] == ["memcg_limit"]
    names = [
        pair.value.string_value
        for record in records[1:]
        for pair in record.attributes
        if pair.key == "oomwatchd.victim.comm"
    ]
    assert names == list(HOSTILE)
    assert "oomwatchd.event" not in named


def test_the_whole_event_by_otlp_if_asked_for(plain: Receiver) -> None:
    otlp.Otlp(otlp.Options(url=plain.url, payload="full")).deliver([event()])
    read = ExportLogsServiceRequest.FromString(plain.requests[0].body)
    named = {p.key: p.value for p in read.resource_logs[0].scope_logs[0].log_records[0].attributes}
    assert json.loads(named["oomwatchd.event"].string_value) == json.loads(encode(event()))


def test_both_encodings_say_the_same_of_every_recorded_report(corpus: Path) -> None:
    """Parse() refuses unknown fields; the binary form would keep them as unknown ones."""
    options = otlp.Options(payload="full")
    found = [
        conclude(capture).event
        for recording in kernel_recordings(corpus)
        for capture in captures(recording)[:20]
    ]
    assert len(found) > 100
    message = otlp.request(found, options, WALL)
    binary = ExportLogsServiceRequest.FromString(encode_protobuf(message, EXPORT_LOGS_SERVICE_REQUEST))
    assert Parse(json.dumps(message), ExportLogsServiceRequest()) == binary
    binary_again = ExportLogsServiceRequest()
    binary_again.CopyFrom(binary)
    binary_again.DiscardUnknownFields()
    assert binary_again == binary
    assert len(binary.resource_logs[0].scope_logs[0].log_records) == len(found)


@pytest.mark.parametrize("wall", ["1969-12-31T23:59:58.000Z", "0001-01-01T00:00:00.000Z"])
def test_a_clock_before_1970_is_sent_as_its_beginning(plain: Receiver, wall: str) -> None:
    early = replace(event(), time=replace(event().time, wall=wall))
    otlp.Otlp(otlp.Options(url=plain.url), clock=lambda: WALL).deliver([early])
    read = ExportLogsServiceRequest.FromString(plain.requests[0].body)
    assert read.resource_logs[0].scope_logs[0].log_records[0].time_unix_nano == 0


@given(st.dictionaries(st.text(), st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1)))
def test_any_attribute_comes_out_of_protobuf_as_it_went_in(attributes: dict[str, Any]) -> None:
    message = {"resourceLogs": [{"resource": {"attributes": otlp._key_values(attributes)}}]}
    binary = ExportLogsServiceRequest.FromString(encode_protobuf(message, EXPORT_LOGS_SERVICE_REQUEST))
    read = {
        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
        for pair in binary.resource_logs[0].resource.attributes
    }
    assert read == attributes
    assert {key: type(value) for key, value in read.items()} == {k: type(v) for k, v in attributes.items()}


@given(st.binary())
def test_no_answer_is_too_broken_to_be_read(body: bytes) -> None:
    assert otlp._rejected(body) >= 0


def test_records_that_are_rejected_are_refused(plain: Receiver) -> None:
    partial = ExportLogsPartialSuccess(rejected_log_records=300, error_message="no")
    assert otlp._rejected(ExportLogsServiceResponse(partial_success=partial).SerializeToString()) == 300
    one = ExportLogsServiceResponse(partial_success=ExportLogsPartialSuccess(rejected_log_records=1))
    for encoding, body in (
        ("json", b'{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "no"}}'),
        ("protobuf", one.SerializeToString()),
    ):
        plain.body = body
        with pytest.raises(SinkError, match="the receiver rejected 1 of 1 records") as caught:
            otlp.Otlp(otlp.Options(url=plain.url, encoding=encoding)).deliver([event()])  # type: ignore[arg-type]
        assert caught.value.refused
    assert [request.headers["content-type"] for request in plain.requests] == [
        "application/json",
        "application/x-protobuf",
    ]
    warned = ExportLogsServiceResponse(partial_success=ExportLogsPartialSuccess(error_message="warning"))
    for fine in (b"", b"{}", b'{"partialSuccess": {}}', b"not JSON", warned.SerializeToString()):
        plain.body = fine
        otlp.Otlp(otlp.Options(url=plain.url)).deliver([event()])
