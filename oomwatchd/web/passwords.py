"""Basic authentication (RFC 7617) against bcrypt hashes.

A hash takes a tenth of a second on purpose, so passwords are checked in their own lane and the results are
remembered. Clients that guess wait behind clients that do not: each wrong password puts the client's next
ones one rank back (:mod:`oomwatchd.web.lanes`), until the client has been quiet for a while.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from oomwatchd.web.lanes import Later
from oomwatchd.web.messages import Request, Response

#: how many checked passwords are remembered: right ones, and wrong ones, so that a scraper with an old
#: password costs one hash and not one for each scrape
_RIGHT, _WRONG = 64, 256
#: bcrypt uses no more bytes of a password
_BCRYPT_BYTES = 72
#: how many clients' wrong passwords are counted, for how long, and the most ranks that a client is put back
_GUESSERS, _QUIET_SECONDS, _MOST_RANKS = 1024, 60.0, 1000


class Passwords:
    """Checks passwords and remembers the results; may be used from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._salt = os.urandom(16)
        self._right: dict[bytes, None] = {}
        self._wrong: dict[bytes, None] = {}
        #: client -> wrong passwords, and when the last one came
        self._guesses: dict[str, tuple[int, float]] = {}

    def admit(
        self, request: Request, users: Mapping[str, str], proceed: Callable[[], Response | Later]
    ) -> Response | Later:
        """``proceed()`` if the request holds the password of one of ``users`` (name -> bcrypt hash)."""
        given = _credentials(request)
        if given is None:
            return UNAUTHORIZED
        user, password = given
        hashed = users.get(user)
        # an unknown user costs an equal hash: the time must not tell which users exist
        compared = hashed if hashed is not None else _fake_hash(users)
        key = hmac.digest(
            self._salt, b"\0".join((user.encode(), compared.encode(), password)), hashlib.sha256
        )
        with self._lock:
            if key in self._right:
                return proceed()
            if key in self._wrong:
                return UNAUTHORIZED
            rank = self._rank(request.client)

        def check() -> Response | Later:
            right = _matches(password, compared) and hashed is not None
            with self._lock:
                _remember(self._right if right else self._wrong, key, _RIGHT if right else _WRONG)
                if not right:
                    self._count(request.client)
            # the handler's inline part normally runs in the server's thread; here it runs in the lane
            return proceed() if right else UNAUTHORIZED

        return Later("password", check, rank)

    def _rank(self, client: str) -> int:
        guesses, last = self._guesses.get(client, (0, 0.0))
        return guesses if self._clock() - last < _QUIET_SECONDS else 0

    def _count(self, client: str) -> None:
        guesses = min(self._rank(client) + 1, _MOST_RANKS)
        self._guesses.pop(client, None)  # the newest last
        self._guesses[client] = guesses, self._clock()
        if len(self._guesses) > _GUESSERS:
            del self._guesses[next(iter(self._guesses))]


def _credentials(request: Request) -> tuple[str, bytes] | None:
    """RFC 7617."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = binascii.a2b_base64(token.strip(), strict_mode=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user.decode("utf-8", "replace"), password) if colon else None


def _matches(password: bytes, hashed: str) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed.encode())
    except ValueError:  # a NUL in it, say
        return False


def _fake_hash(users: Mapping[str, str]) -> str:
    """A hash that no password has, as costly as the first user's."""
    return f"$2b${next(iter(users.values())).split('$')[2]}$" + "." * 53


def _remember(kept: dict[bytes, None], key: bytes, most: int) -> None:
    kept[key] = None
    if len(kept) > most:
        del kept[next(iter(kept))]


UNAUTHORIZED = Response(
    HTTPStatus.UNAUTHORIZED, b"Unauthorized\n", headers={"WWW-Authenticate": 'Basic realm="oomwatchd"'}
)
