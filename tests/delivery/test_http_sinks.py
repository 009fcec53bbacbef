"""Webhook, Alertmanager and OTLP against a real server: what is sent, how each answer is handled, and that no
secret is ever shown."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.cli.notify_test import test_event as a_test_event
from oomwatchd.config import parse
from oomwatchd.delivery.policy import pause
from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.errors import ConfigError
from oomwatchd.records.report import Finding, Task, Victim
from oomwatchd.sinks import SinkError, alertmanager, journal, open_sinks, otlp, webhook
from oomwatchd.sinks._http import HttpClient, HttpOptions
from oomwatchd.sinks._payload import Template, TemplateError, document, particulars
from oomwatchd.sinks._secrets import read_secret
from oomwatchd.sinks.webhook import Options, Webhook
from tests.delivery.receivers import GARBAGE, HANG, RESET, Proxy, Receiver, certificate, free_port, receiver
from tests.samples import WALL, event
from tests.test_sinks import HOSTILE

SECRET = "hunter2-correct-horse"  # noqa: S105  # not a secret: it must never be said


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("tls"))


# -- the webhook ---------------------------------------------------------------------------------------


def test_the_signature_of_standard_webhooks() -> None:
    """The test vector that their libraries share."""
    assert (
        webhook.signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_secrets_are_read_anew_and_sent(plain: Receiver, tmp_path: Path) -> None:
    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text("k1\n")
    token.write_text(f"Bearer {SECRET}\n")
    options = Options(
        url=plain.url,
        signing_key=str(key),
        secret_headers={"Authorization": str(token)},
        headers={"X-A": "b"},
    )
    sink = Webhook(options, clock=lambda: 1700000000.5)
    sink.deliver([event()])
    key.write_text("k2")
    sink.deliver([event()])
    first, second = plain.requests
    assert first.headers["authorization"] == f"Bearer {SECRET}"
    assert first.headers["x-a"] == "b"
    assert first.headers["webhook-timestamp"] == "1700000000"
    for request, secret in ((first, "k1"), (second, "k2")):
        expected = webhook.signature(secret, event().id, 1700000000, request.body)
        assert request.headers["webhook-signature"] == expected


def test_matrix_is_told_by_put_with_the_id_as_transaction(plain: Receiver) -> None:
    sink = Webhook(Options(url=f"{plain.url}/send/m.room.message/${{id}}", method="PUT", template="matrix"))
    sink.deliver([event()])
    [request] = plain.requests
    assert (request.method, request.path) == ("PUT", f"/send/m.room.message/{event().id}")
    assert request.json()["msgtype"] == "m.text"
    assert request.json()["m.mentions"] == {}, "nobody is called, whatever the names say (Matrix 1.7)"


@pytest.mark.parametrize("name", ["slack", "mattermost", "matrix", "teams"])
@pytest.mark.parametrize(
    "comm",
    ["@room", "@channel", "@everyone", "@here hi", "x @all", "@bob:e.org", "<@U123>", "a@room", "user@1000"],
)
def test_no_name_calls_anybody(plain: Receiver, name: str, comm: str) -> None:
    """Whether a chat program takes the text for a mention: an @ at the beginning of a word, or before a word
    that means all in the room. The @ of user@1000.service is no mention and stays."""
    where = f"/x/{comm}/<!channel> @room"
    whose = Attribution(pid=4242, role="victim", cgroup=where, learnt="proc")
    Webhook(Options(url=plain.url, template=name)).deliver([event(comm=comm, attribution=(whose,))])
    [request] = plain.requests
    texts = list(strings(request.json()))
    assert len(texts) > 0
    for text in texts:
        assert not re.search(r"(?<![A-Za-z0-9_])@|@(room|all|channel|here|everyone)\b", text), text
        # the body of a Matrix message is plain text
        assert name == "matrix" or not re.search(r"<[!@#]", text), text
    assert any("user@1000" in text for text in texts) == (comm == "user@1000")


@pytest.mark.parametrize("comm", ["@room", "<!channel>", "<@U123>", "x @all"])
def test_no_alert_calls_anybody(comm: str) -> None:
    """What Alertmanager passes on to chats and mails as it is."""
    told = event(
        comm=comm, findings=(Finding(id="x", severity="info", title=comm, explanation=comm, advice=comm),)
    )
    annotations = alertmanager.alert(told, alertmanager.Options(), WALL)["annotations"]
    assert set(annotations) == {"summary", "description", "advice"}
    for text in annotations.values():
        assert not re.search(r"(?<![A-Za-z0-9_])@|<[!@#]", text), text


def strings(part: object) -> Iterator[str]:
    """All strings of a document."""
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from strings(inner)
    elif isinstance(part, str):
        yield part


@pytest.mark.parametrize("name", ["slack", "mattermost", "matrix", "teams"])
@pytest.mark.parametrize(
    "comm", [*HOSTILE, '"},"text":"forged', "<b>x</b>&<!channel>", "[click](http://evil)"]
)
def test_no_name_leaves_its_place_in_a_template(plain: Receiver, name: str, comm: str) -> None:
    Webhook(Options(url=plain.url, template=name)).deliver([event(), event(comm=comm)])
    usual, hostile = (request.json() for request in plain.requests)

    def shape(part: object) -> object:
        if isinstance(part, dict):
            return {key: shape(value) for key, value in part.items()}
        return [shape(value) for value in part] if isinstance(part, list) else type(part)

    assert shape(usual) == shape(hostile)
    text = json.dumps(hostile, ensure_ascii=False)
    marked = hostile.get("formatted_body") or text
    assert "<b>" not in marked and "<!channel>" not in marked
    if name in ("teams", "mattermost"):
        assert "[click](" not in text and "http://evil" not in text
    if name == "slack":  # markup and emoji are read in the two lines alone that hold no name
        read = [
            text for part in parts(hostile["blocks"]) if part["type"] == "mrkdwn" for text in strings(part)
        ]
        assert len(read) == 4 and not any(comm in text for text in read if comm)
    lines = 2 if name == "mattermost" else 0
    assert str(hostile.get("text", "")).count("\n") == lines, "those of the template alone"


def parts(part: object) -> Iterator[dict[str, Any]]:
    """All objects of a document that have a text of their own."""
    if isinstance(part, dict):
        if isinstance(part.get("text"), str):
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from parts(inner)


def test_a_long_text_is_cut_before_a_receiver_refuses_it(plain: Receiver) -> None:
    long = Finding(id="x", severity="info", title="t", explanation="e" * 9000, advice="a" * 9000)
    Webhook(Options(url=plain.url, template="slack")).deliver([event(summary="s" * 9000, findings=(long,))])
    [request] = plain.requests
    assert max(len(text) for text in strings(request.json()["blocks"])) <= 3000


@given(st.text(), st.text())
def test_any_text_stays_inside_its_string(name: str, value: str) -> None:
    template = Template('{"a": "x${v}y", "b": ["${v|html}", "${v}", 1, null], "$$": "$$5"}', frozenset({"v"}))
    filled = json.loads(template.fill({"v": value.encode("utf-8", "replace").decode()}, {}))
    assert list(filled) == ["a", "b", "$$"]
    assert filled["a"].startswith("x") and filled["$$"] == "$5"


def test_a_lone_place_keeps_its_type() -> None:
    template = Template('{"n": "${kills}", "e": "${event}"}', frozenset({"kills"}))
    assert json.loads(template.fill({"kills": 3}, {"id": "x"})) == {"n": 3, "e": {"id": "x"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ('{"a": "${nix}"}', r"no such name: \$\{nix\}; known: advice, again, cgroup"),
        ('{"a": "${id|xml}"}', "no such escape: xml; known: text, html, markdown, mrkdwn"),
    ],
)
def test_a_wrong_template_is_said_at_the_start(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        Template(text, frozenset(particulars(event(), "")))
    file = tmp_path / "t.json"
    file.write_text(text)
    with pytest.raises(SinkError, match=f"template {file}: {words}"):
        Webhook(Options(url="https://x", template=str(file)))


# -- answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words", "refused"),
    [
        (302, "HTTP 302 (Found), and redirects are not followed", False),
        (400, "HTTP 400 (Bad Request)", True),
        (401, "HTTP 401 (Unauthorized)", False),
        (404, "HTTP 404 (Not Found)", False),
        (413, "HTTP 413", True),
        (429, "HTTP 429 (Too Many Requests)", False),
        (500, "HTTP 500 (Internal Server Error)", False),
        (599, "HTTP 599", False),
        (HANG, "no answer within 1 s", False),
        (RESET, "", False),
        (GARBAGE, "", False),
    ],
)
def test_what_is_made_of_an_answer(
    plain: Receiver, tmp_path: Path, answer: int, words: str, refused: bool
) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    plain.answers = [answer]
    plain.body = SECRET.encode()  # a receiver that echoes
    plain.headers = {"Location": f"{plain.url}/elsewhere", "Retry-After": "7", "X-Echo": SECRET}
    options = Options(
        url=f"{plain.url}/{SECRET}?{SECRET}", timeout_seconds=1.0, secret_headers={"X-Token": str(token)}
    )
    sink = Webhook(options)
    with pytest.raises(SinkError) as caught:
        sink.deliver([event()])
    assert str(caught.value).startswith(f"{plain.url}: {words}")
    assert caught.value.refused is refused
    assert caught.value.retry_after_seconds == (7 if answer > 0 else None)
    assert SECRET not in str(caught.value)
    assert len(plain.requests) == 1
    plain.headers = {}
    sink.deliver([event()])  # the connection is none the worse for it
    assert len(plain.taken()) == 1


@pytest.mark.parametrize(
    "value",
    [
        *("9" * 5000, "99999999999999999999", "-5", "1e309", "nan", "inf", "0x10", "٣", ""),
        *(
            "Fri, 99 Foo 0000 25:61:61 GMT",
            "Fri, 31 Dec 999999999 23:59:59 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ),
        *("0", "; drop", "Thu, 01 Jan 1970 00:00:00 +9999999999"),
    ],
)
def test_an_absurd_pause_is_an_hour_at_most(plain: Receiver, value: str) -> None:
    plain.answers = [503]
    plain.headers = {"Retry-After": value.encode().decode("latin-1")}
    with pytest.raises(SinkError) as caught:
        Webhook(Options(url=plain.url)).deliver([event()])
    assert 1 <= pause(1, 0.0, retry_after=caught.value.retry_after_seconds) <= 3600


@pytest.mark.parametrize("kind", ["fifo", "directory", "absent", "locked", "binary", "long", "empty"])
def test_a_secret_that_is_none_is_said_at_once(plain: Receiver, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    if kind == "fifo":
        os.mkfifo(secret)
    elif kind == "directory":
        secret.mkdir()
    elif kind != "absent":
        content = {"locked": b"word", "binary": b"a\0b\xff", "long": b"a" * 20_000, "empty": b"\n"}[kind]
        secret.write_bytes(content)
    words = {"directory": "Is a directory", "absent": "No such file", "locked": "Permission denied"}
    sink = Webhook(Options(url=plain.url, secret_headers={"X-Token": str(secret)}))
    if kind == "locked":
        secret.chmod(0)
    root = os.geteuid() == 0
    if root and kind == "locked":
        os.seteuid(65534)
    try:
        with pytest.raises(SinkError, match=words.get(kind, "is not one line of printable ASCII")) as caught:
            sink.deliver([event()])
    finally:
        if root:
            os.seteuid(0)
    assert str(secret) in str(caught.value)
    assert plain.requests == []


def test_the_library_writes_no_url_into_the_log(plain: Receiver) -> None:
    """It would, of each request (debug), and of answers with broken headers (warning)."""
    plain.headers = {"Content-Length": "2", "X": "y\r\nthis is no header"}
    program = (
        "import logging, sys; logging.basicConfig(level='DEBUG')\n"
        "from tests.samples import event; from oomwatchd.sinks.webhook import Options, Webhook\n"
        "Webhook(Options(url=sys.argv[1])).deliver([event()]); logging.debug('this is seen')"
    )
    command = [sys.executable, "-c", program, f"{plain.url}/{SECRET}?{SECRET}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "this is seen" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert len(plain.taken()) == 1


def test_nobody_there_and_no_such_host(tmp_path: Path) -> None:
    client = HttpClient(HttpOptions(timeout_seconds=2))
    port = free_port()
    with pytest.raises(SinkError, match=f"^http://127.0.0.1:{port}: Connection refused$"):
        client.send("POST", f"http://127.0.0.1:{port}/{SECRET}", b"", "text/plain")
    with pytest.raises(SinkError, match=r"^http://no-such-host.invalid: its name cannot be resolved$"):
        client.send("POST", "http://no-such-host.invalid/", b"", "text/plain")


def test_an_answer_without_end_is_not_read_to_its_end(plain: Receiver) -> None:
    plain.body = b"x" * (4 << 20)
    client = HttpClient(HttpOptions())
    assert len(client.send("POST", plain.url, b"", "text/plain").body) == 65536


def test_certificates_are_verified(trusted: tuple[Path, ssl.SSLContext], tmp_path: Path) -> None:
    file, context = trusted
    _, other = certificate(tmp_path, "other.example")
    with receiver(context) as secure, receiver(other) as wrong:
        Webhook(Options(url=secure.url, ca_file=str(file))).deliver([event()])
        assert len(secure.requests) == 1
        with pytest.raises(SinkError, match=r"TLS: .*self.signed certificate"):
            Webhook(Options(url=secure.url)).deliver([event()])
        both = tmp_path / "both.pem"
        both.write_bytes(file.read_bytes() + (tmp_path / "other.example.pem").read_bytes())
        with pytest.raises(SinkError, match=r"TLS: .*[Hh]ostname mismatch"):
            Webhook(Options(url=wrong.url, ca_file=str(both))).deliver([event()])
        assert len(secure.requests) == 1 and wrong.requests == []


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


def test_through_a_proxy_with_a_password(
    plain: Receiver, proxy: Proxy, trusted: tuple[Path, ssl.SSLContext], tmp_path: Path
) -> None:
    file, context = trusted
    secret = tmp_path / "proxy"
    secret.write_text(f"me:{SECRET}")
    proxy.wanted = f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
    with receiver(context) as secure:
        for server in (secure, plain):
            sink = Webhook(
                Options(
                    url=f"{server.url}/x", ca_file=str(file), proxy=proxy.url, proxy_credentials=str(secret)
                )
            )
            sink.deliver([event()])
            assert len(server.taken()) == 1
            secret.write_text("me:wrong")
            sink.close()  # a tunnel that stands has been paid for
            with pytest.raises(SinkError, match="HTTP 407") as caught:
                sink.deliver([event()])
            assert "wrong" not in str(caught.value)
            secret.write_text(f"me:{SECRET}")
            sink.deliver([event()])
            assert len(server.taken()) == 2
        assert SECRET not in "".join(
            request.headers.get("proxy-authorization", "") for request in secure.requests
        )
    assert proxy.asked == [f"CONNECT localhost:{secure.port}"] * 3 + [f"POST {plain.url}/x"] * 3


def test_a_tunnel_hides_what_is_sent_through_it(
    proxy: Proxy, trusted: tuple[Path, ssl.SSLContext], tmp_path: Path
) -> None:
    file, context = trusted
    (tmp_path / "token").write_text(SECRET)
    with receiver(context) as secure:
        options = Options(
            url=f"{secure.url}/{SECRET}",
            ca_file=str(file),
            proxy=proxy.url,
            secret_headers={"X-Token": str(tmp_path / "token")},
        )
        Webhook(options).deliver([event()])
        assert secure.requests[0].headers["x-token"] == SECRET
    assert SECRET not in proxy.heads[0]
    with pytest.raises(ConfigError, match=r"sinks.webhook.url: secrets do not leave this host without TLS"):
        section = {"url": "http://localhost/", "proxy": proxy.url, "secret_headers": {"X-Token": "t"}}
        parse({"sinks": {"webhook": section}}, "f")


def test_a_proxy_that_is_down_or_refuses_is_named(proxy: Proxy, trusted: tuple[Path, ssl.SSLContext]) -> None:
    file, context = trusted
    dead = f"http://127.0.0.1:{free_port()}"
    with receiver(context) as secure:
        for address, words in ((dead, "Connection refused"), (proxy.url, "HTTP 407")):
            proxy.wanted = "Basic other"
            with pytest.raises(SinkError) as caught:
                Webhook(Options(url=secure.url, ca_file=str(file), proxy=address)).deliver([event()])
            assert str(caught.value).startswith(f"{secure.url}: the proxy {address}")
            assert words in str(caught.value)


def test_the_proxy_of_the_environment_is_not_used(plain: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    Webhook(Options(url=plain.url)).deliver([event()])
    assert len(plain.taken()) == 1


def test_a_client_certificate_is_shown_and_read_again_when_it_is_renewed(
    trusted: tuple[Path, ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, _ = trusted
    for name in ("one", "two"):
        certificate(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, authority.with_suffix(".key"))
    context.verify_mode = ssl.CERT_REQUIRED
    for name in ("one", "two"):
        context.load_verify_locations(tmp_path / f"{name}.pem")
    credentials = tmp_path / "credentials"
    credentials.mkdir()

    def renew(name: str) -> None:
        shutil.copy(tmp_path / f"{name}.pem", credentials / "host-cert")
        shutil.copy(tmp_path / f"{name}.key", credentials / "host-key")

    renew("one")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    with receiver(context) as server:
        with pytest.raises(SinkError, match=rf"^{server.url}: "):
            Webhook(Options(url=server.url, ca_file=str(authority))).deliver([event()])
        assert server.requests == []
        sink = Webhook(
            Options(url=server.url, ca_file=str(authority), client_cert="host-cert", client_key="host-key")
        )
        sink.deliver([event()])
        renew("two")
        sink.deliver([event()])
        assert [request.peer for request in server.requests] == ["one", "two"]
        (credentials / "host-key").unlink()
        with pytest.raises(
            SinkError, match=r"client_cert .*/host-cert, client_key .*/host-key: No such file"
        ):
            sink.deliver([event()])
        renew("one")
        sink.deliver([event()])
        assert server.requests[-1].peer == "one"


def test_certificates_that_cannot_be_used_are_said_at_the_start(tmp_path: Path) -> None:
    certificate(tmp_path, "one")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", str(tmp_path / "one.key"), "-aes256", "-passout", "pass:x"]
    subprocess.run([*command, "-out", str(locked)], check=True, capture_output=True)
    for key in (locked, tmp_path / "one.pem"):
        options = Options(url="https://x", client_cert=str(tmp_path / "one.pem"), client_key=str(key))
        with pytest.raises(SinkError, match="no certificate with its key, or the key has a password"):
            Webhook(options)


# -- several of a kind -----------------------------------------------------------------------------------


def test_several_of_a_kind_have_names_of_their_own(plain: Receiver) -> None:
    tables = [{"url": f"{plain.url}/a", "name": "chat"}, {"url": f"{plain.url}/b", "name": "pager"}]
    config = parse({"sinks": {"webhook": tables, "otlp": {"url": plain.url}}}, "f")
    opened = open_sinks({**config.sinks, "journal": journal.Options(enabled=False)})
    assert [sink.name for sink in opened.remote] == ["otlp", "webhook-chat", "webhook-pager"]
    for sink in opened.remote:
        sink.deliver([event()])
    assert [request.path for request in plain.requests] == ["/v1/logs", "/a", "/b"]


@pytest.mark.parametrize(
    ("sinks", "words"),
    [
        ({"webhook": [{"url": "https://x"}, {"url": "https://y"}]}, "sinks.webhook: two have the name ''"),
        ({"webhook": [{"name": "a"}, {"name": "a"}]}, "sinks.webhook: two have the name 'a'"),
        ({"webhook": [{"name": str(n)} for n in range(9)]}, "sinks.webhook: at most 8 of a kind"),
        ({"webhook": [{"name": "a"}, {"url": "x", "name": "b"}]}, "sinks.webhook.2.url: a URL that begins"),
        ({"webhook": [{"nme": "a"}]}, "unknown key sinks.webhook.1.nme; did you mean sinks.webhook.1.name?"),
        ({"webhook": [3]}, "sinks.webhook.1: expected a table, got an integer"),
        ({"webhook": {"name": 'a"}'}}, "sinks.webhook.name: 'a\"}' is not up to 32 letters"),
        ({"journal": [{}]}, "sinks.journal: expected a table, got a list"),
        ({"webhook": {"proxy": "socks5://x"}}, "sinks.webhook.proxy: a URL that begins with"),
        ({"webhook": {"proxy": f"http://a:{SECRET}@x"}}, "sinks.webhook.proxy: no password in a URL; name a"),
        ({"webhook": {"proxy": "http://x/y"}}, "sinks.webhook.proxy: only scheme, host and port"),
        ({"webhook": {"proxy_credentials": "x"}}, "sinks.webhook.proxy_credentials: needs proxy"),
        ({"webhook": {"client_key": "x"}}, "sinks.webhook.client_key: needs client_cert"),
    ],
)
def test_what_cannot_be_told_apart_or_used_is_refused(sinks: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"sinks": sinks}, "f")
    assert str(caught.value).startswith(f"f: {words}")
    assert SECRET not in str(caught.value)


# -- secrets and configuration -------------------------------------------------------------------------


def test_secrets_come_from_files_and_credentials(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    assert read_secret("token", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == SECRET
    assert read_secret(str(tmp_path / "token"), {}) == SECRET
    with pytest.raises(
        SinkError, match=r"the credential token needs a service with LoadCredential=token:FILE"
    ):
        read_secret("token", {})
    with pytest.raises(SinkError, match=r"cannot read the secret .*/none: No such file"):
        read_secret(str(tmp_path / "none"), {})


@pytest.mark.parametrize(
    "content", ["", "\n", f"{SECRET}\nX-Evil: 1", f"{SECRET}\x00", f"{SECRET}é", "x" * 20000]
)
def test_a_secret_that_cannot_be_one_is_refused_without_saying_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(SinkError) as caught:
        read_secret(str(file))
    assert str(caught.value) == f"the secret {file} is not one line of printable ASCII"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"webhook": {"url": "ftp://x"}}, "sinks.webhook.url: a URL that begins with https:// or http:// is"),
        ({"webhook": {"url": "https://"}}, "sinks.webhook.url: a URL that begins with"),
        ({"webhook": {"url": f"https://a:{SECRET}@x"}}, "sinks.webhook.url: no password in a URL"),
        ({"webhook": {"url": "https://x:99999999"}}, "sinks.webhook.url: this is not a URL"),
        ({"webhook": {"url": "https://x", "url_file": "/y"}}, "sinks.webhook.url_file: give either url or"),
        (
            {"otlp": {"url": "http://far.example", "secret_headers": {"A": "t"}}},
            "sinks.otlp.url: secrets do not leave this host without TLS",
        ),
        ({"alertmanager": {"urls": ["x"]}}, "sinks.alertmanager.urls: a URL that begins with"),
        ({"webhook": {"headers": {"A:": "b"}}}, "sinks.webhook.headers: 'A:' is not a header"),
        ({"webhook": {"headers": {"A": "b\r\nC: d"}}}, "sinks.webhook.headers: 'A' is not a header"),
        ({"webhook": {"timeout_seconds": 0}}, "sinks.webhook.timeout_seconds: expected a number > 0"),
    ],
)
def test_what_cannot_work_is_refused_by_check_config(section: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"sinks": section}, "f")
    assert str(caught.value).startswith(f"f: {words}")
    assert SECRET not in str(caught.value)


def test_a_url_from_a_file_is_held_to_the_same_and_never_said(plain: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{plain.url}/services/{SECRET}")
    Webhook(Options(url_file=str(file))).deliver([event()])
    assert plain.requests[0].path == f"/services/{SECRET}"
    for wrong in (f"http://far.example/{SECRET}", SECRET, f"https://u:{SECRET}@x/"):
        file.write_text(wrong)
        with pytest.raises(SinkError) as caught:
            Webhook(Options(url_file=str(file))).deliver([event()])
        assert SECRET not in str(caught.value)


def test_a_sink_that_cannot_be_opened_keeps_its_place(caplog: pytest.LogCaptureFixture) -> None:
    config = parse({"sinks": {"webhook": {"url": "https://x", "template": "/nix"}}}, "f")
    _, [sink], _ = open_sinks(config.sinks)
    assert sink.name == "webhook"
    with pytest.raises(SinkError, match="template /nix: there is no such file"):
        sink.deliver([event()])
    assert "sink webhook cannot work: template /nix" in caplog.text


# -- what leaves the host ------------------------------------------------------------------------------


def test_the_small_payload_is_small_and_says_who_where_why() -> None:
    tasks = tuple(Task(pid=n, comm="x" * 15) for n in range(5000))
    victims = tuple(Victim(pid=n, comm="x" * 15, uid=0, anon_rss_bytes=1 << 30) for n in range(4242, 5000))
    big = event(tasks=tasks, victims=victims, kills=758, snapshots={"at": {"parts": {"meminfo": "x" * 9999}}})
    small = document(big, "small")
    assert len(json.dumps(small)) < 32 * 1024
    assert not {"tasks", "snapshots", "memory", "slab", "allocations"} & set(small)
    assert (small["kills"], len(small["victims"])) == (758, 64)
    assert small["attribution"][0]["unit"] == "web.service"
    assert small["findings"][0]["id"] == "memcg_limit"
    assert len(document(big, "full")["tasks"]) == 5000


def test_a_command_line_leaves_only_if_it_was_captured(plain: Receiver) -> None:
    whose = Attribution(pid=4242, role="victim", command_line=f"app --password {SECRET}")
    for found, expected in ((event(attribution=(whose,)), True), (event(), False)):
        Webhook(Options(url=plain.url)).deliver([found])
        otlp.Otlp(otlp.Options(url=plain.url)).deliver([found])
        for request in plain.requests[-2:]:
            assert (SECRET.encode() in request.body) is expected


# -- Alertmanager --------------------------------------------------------------------------------------


def test_an_alert_has_few_labels_and_says_why(plain: Receiver) -> None:
    options = alertmanager.Options(urls=[plain.url], labels={"cluster": "a"}, link="http://h/${id}")
    alertmanager.Alertmanager(options, clock=lambda: WALL + 10).deliver([event(), event(200, comm="x\ny")])
    [request] = plain.requests
    first, second = request.json()
    assert request.path == "/api/v2/alerts"
    assert first["labels"] == {
        "alertname": "KernelOomKill",
        "severity": "warning",
        "host": socket.gethostname(),
        "constraint": "memcg",
        "unit": "web.service",
        "event_id": event().id,
        "cluster": "a",
    }
    assert first["annotations"]["summary"] == event().summary
    assert first["generatorURL"] == f"http://h/{event().id}"
    assert first["startsAt"] == "2026-09-21T14:13:20+00:00"
    assert first["endsAt"] == "2026-09-21T15:13:30.000Z"
    assert "\\x0a" in second["annotations"]["summary"]


def test_an_answer_that_drips_has_a_deadline() -> None:
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            for _ in range(600):  # then the answer is cut short
                if ended.wait(0.1):
                    break
                client.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        sink = webhook.Webhook(webhook.Options(url=url, timeout_seconds=0.5))
        try:
            with pytest.raises(SinkError, match=r"no answer within 0\.5 s"):
                sink.deliver([event()])
        finally:
            ended.set()
            thread.join()


def test_of_several_alertmanagers_one_suffices(plain: Receiver) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    alertmanager.Alertmanager(alertmanager.Options(urls=[dead, plain.url])).deliver([event()])
    assert len(plain.requests) == 1
    with pytest.raises(SinkError, match="Connection refused"):
        alertmanager.Alertmanager(alertmanager.Options(urls=[dead])).deliver([event()])


def test_what_one_alertmanager_refuses_waits_for_the_one_that_is_away(plain: Receiver) -> None:
    plain.otherwise = 400
    dead = f"http://127.0.0.1:{free_port()}"
    for urls, refused in (([plain.url, dead], False), ([plain.url, plain.url], True)):
        with pytest.raises(SinkError) as caught:
            alertmanager.Alertmanager(alertmanager.Options(urls=urls)).deliver([event()])
        assert caught.value.refused is refused


# -- notify-test ---------------------------------------------------------------------------------------


def notify_test(config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from oomwatchd.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "notify-test", "--config", str(config), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_notify_test_says_what_each_sink_answered(plain: Receiver, tmp_path: Path) -> None:
    config, lines = tmp_path / "c.toml", tmp_path / "events.jsonl"
    config.write_text(
        f"[sinks.journal]\nenabled = false\n[sinks.jsonl]\npath = '{lines}'\n"
        f"[sinks.webhook]\nurl = '{plain.url}/{SECRET}'\n[sinks.otlp]\nurl = 'http://127.0.0.1:{free_port()}'\n"
    )
    done = notify_test(config)
    assert done.returncode == 69
    assert re.fullmatch(
        r"jsonl: ok, \d\.\d{3} s\notlp: FAILED: http://127.0.0.1:\d+: Connection refused\n"
        r"webhook: ok, \d\.\d{3} s\nevent: test-[0-9a-f]{16}\n",
        done.stdout,
    )
    assert SECRET not in done.stdout + done.stderr
    [request] = plain.requests
    sent = request.json()
    assert sent["type"] == "oomwatchd.test"
    assert sent["data"]["kills"] == 0
    assert sent["data"]["summary"] == "TEST of oomwatchd: nothing was killed"
    assert json.loads(lines.read_text())["source"]["kind"] == "test"
    assert notify_test(config, "webhook").returncode == 0
    assert len(plain.requests) == 2
    refused = notify_test(config, "journal")
    assert (refused.returncode, refused.stdout) == (64, "")
    assert "switched on: jsonl, otlp, webhook" in refused.stderr


def test_a_test_event_is_marked_in_every_medium() -> None:
    made = a_test_event(WALL)
    labels = alertmanager.alert(made, alertmanager.Options(), WALL)["labels"]
    assert labels["test"] == "true"
    assert otlp.attributes(made)["oomwatchd.test"] is True
    assert webhook.cloud_event(made, "small")["type"] == "oomwatchd.test"
