"""Command lines: what is plainly secret is masked, the rest stays, hostile ones cost little."""

from __future__ import annotations

import time

import pytest

from oomwatchd.observe.redact import redact


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["x", "--password=hunter2"], "x --password=***"),
        (["x", "--password", "hunter2", "db"], "x --password *** db"),
        (["x", "--db-password", "hunter2"], "x --db-password ***"),
        (["x", "-token", "abc"], "x -token ***"),
        (["x", "--password", "--verbose"], "x --password --verbose"),
        (["env", "PGPASSWORD=hunter2", "psql"], "env PGPASSWORD=*** psql"),
        (["env", "DB_PASSWORD=hunter2", "psql"], "env DB_PASSWORD=*** psql"),
        (["env", "AWS_SECRET_ACCESS_KEY=abc/def"], "env AWS_SECRET_ACCESS_KEY=***"),
        (
            ["java", "-Dspring.datasource.password=s3", "-jar", "a.jar"],
            "java -Dspring.datasource.password=*** -jar a.jar",
        ),
        (["java", "-DadminPassword=s3"], "java -DadminPassword=***"),
        (["sh", "-c", "PASSWORD='a b' run --token=t1 next"], "sh -c PASSWORD=*** run --token=*** next"),
        (["psql", "postgres://bob:pw@db/x"], "psql postgres://bob:***@db/x"),
        (["curl", "-H", "Authorization: Bearer abcdef123456"], "curl -H Authorization: Bearer ***"),
        (["curl", "https://h/p?user=a&token=abc&x=1"], "curl https://h/p?user=a&token=***&x=1"),
        (["curl", "-d", '{"user":"a","password":"b"}'], 'curl -d {"user":"a","password":***}'),
        (["mysql", "-uroot", "-phunter2", "db"], "mysql -uroot -p*** db"),
        (["/usr/bin/mysqldump", "-phunter2"], "/usr/bin/mysqldump -p***"),
        (["x", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_"], "x ***"),
        (["x", "AKIAIOSFODNN7EXAMPLE"], "x ***"),
        (["x", "-----BEGIN RSA PRIVATE KEY-----\nabc"], "x ***"),
    ],
)
def test_secrets_are_masked(arguments: list[str], shown: str) -> None:
    assert redact(arguments) == shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["python3", "-m", "http.server", "--bind", "127.0.0.1"],
        ["ssh", "-p", "2222", "user@host"],
        ["mkdir", "-p", "/srv/x"],
        ["postgres", "-D", "/var/lib/postgresql", "-c", "shared_buffers=4GB"],
        ["tokenizer", "--tokens", "512"],
        ["author", "compass", "/etc/passwd"],
        ["java", "-Xmx4g", "-Dfile.encoding=UTF-8"],
        ["x", "http://host:8080/path@v1"],
        [],
        [""],
    ],
)
def test_what_is_no_secret_stays(arguments: list[str]) -> None:
    assert redact(arguments) == " ".join(arguments)


def test_hostile_arguments_cost_little() -> None:
    began = time.process_time()
    for hostile in (
        "a-" * 2048,
        "password" * 512,
        "token=" * 700,
        "://:" * 1024,
        "eyJ" * 1300,
        "-" * 4096,
        "a." * 2048,
    ):
        redact(["x", hostile])
    assert time.process_time() - began < 0.5
