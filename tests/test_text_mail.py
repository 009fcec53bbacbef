"""Mail as it was sent: each part says how it is encoded."""

from __future__ import annotations

import base64
import quopri
from email.message import EmailMessage

import pytest

from oomwatchd.reports.decode import decode
from oomwatchd.sources.text import GrowingLog
from tests.test_text_carriers import SHORT, stamped

REPORT = "\n".join(stamped(SHORT))


def said(mail: str) -> list[object]:
    """The reports in a mail."""
    log = GrowingLog()
    return [decode(capture.records) for capture in (*log.feed(mail.encode()), *log.finish())]


HEAD = "From: a@b.example\nSubject: killed\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64", "8bit"])
@pytest.mark.parametrize("prose", ["", "My shop\u2019s server died again:\n\n"])
def test_a_mail_says_how_it_is_encoded(encoding: str, prose: str) -> None:
    text = f"{prose}{REPORT}\n\nRegards\n".encode()
    body = {"quoted-printable": quopri.encodestring(text), "base64": base64.encodebytes(text), "8bit": text}
    mail = f"{HEAD}Content-Transfer-Encoding: {encoding}\n\n{body[encoding].decode()}"
    assert said(mail) == said(REPORT)


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64"])
def test_a_part_of_a_mail(encoding: str) -> None:
    mail = EmailMessage()
    mail["Subject"] = "java invoked oom-killer"
    mail.set_content("See the log.\n")
    mail.add_attachment(REPORT.encode(), maintype="text", subtype="plain", cte=encoding)
    assert said(mail.as_string()) == said(REPORT)


def test_a_mail_that_was_decoded_when_it_was_copied() -> None:
    mail = f"{HEAD}Content-Transfer-Encoding: quoted-printable\n\n{REPORT}\n"
    assert said(mail) == said(REPORT)


def test_the_subject_of_a_mail_is_no_report() -> None:
    subject = "Subject: Re: [LTP] [PATCH 1/2] loop.c: test_loop01 invoked oom-killer"
    assert said(f"{subject}\n\n> MemTotal: 512 kB\nHow much memory does it have?\n{subject}\n") == []
