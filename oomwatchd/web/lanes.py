"""Slow answers. Each kind has its own thread, which makes them one after the other, in an order that is fair
to the clients (:attr:`oomwatchd.web.messages.Request.client`).

The lowest rank goes first; among equals, the client that was served least recently. When all places are
taken, the client that has most of them loses one.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

import msgspec

from oomwatchd.web.connection import Connection
from oomwatchd.web.messages import Request, Response, compose

log = logging.getLogger(__name__)

LaneName = Literal["password", "page"]
#: the most requests that wait for one lane; further ones are told to try later. A password's hash takes a
#: tenth of a second, a page of a large report several tenths
ROOM: dict[LaneName, int] = {"password": 64, "page": 16}
#: how many clients' last turns are remembered
_MAX_TURNS = 256


class Later(msgspec.Struct, frozen=True):
    """A slow answer: ``make`` is called in the thread of ``lane``, which serves one
    request after the other, and may itself name another lane. The lowest ``rank`` goes first."""

    lane: LaneName
    make: Callable[[], Response | Later]
    rank: int = 0


class Task(msgspec.Struct, frozen=True, eq=False):
    """A request that waits for its answer."""

    connection: Connection
    request: Request
    later: Later


class Lane:
    """One thread that makes answers one after the other; ``done`` is called in it with each."""

    def __init__(self, name: LaneName, done: Callable[[Task, bytes | Later], None]) -> None:
        self._room = ROOM[name]
        self._tasks: deque[Task] = deque()
        #: client -> number of its last turn
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._done = done
        self._thread = threading.Thread(target=self._run, name=f"http-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where none can be started."""
        self._thread.start()

    def take(self, task: Task) -> Task | None:
        """Add a task. Returns the task for which there is no room, if any: this one or another client's."""
        with self._changed:
            self._tasks.append(task)
            if len(self._tasks) > self._room:
                for gone in [waiting for waiting in self._tasks if waiting.connection.closed]:
                    self._tasks.remove(gone)
            out = self._crowding() if len(self._tasks) > self._room else None
            if out is not None:
                self._tasks.remove(out)
            self._changed.notify()
        return out

    def stop(self) -> None:
        """Begin no further task; do not wait for the present one."""
        with self._changed:
            self._stopping = True
            self._tasks.clear()
            self._changed.notify()

    def _crowding(self) -> Task:
        """The task that is given up: of the client with the most tasks, the newest of the highest rank."""
        waiting = Counter(task.request.client for task in self._tasks)
        return max(reversed(self._tasks), key=lambda task: (waiting[task.request.client], task.later.rank))

    def _next(self) -> Task | None:
        """Wait for the next task; None: the lane has stopped."""
        with self._changed:
            while not self._tasks and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            task = min(
                self._tasks, key=lambda task: (task.later.rank, self._turns.get(task.request.client, 0))
            )
            self._tasks.remove(task)
            self._turn += 1
            self._turns.pop(task.request.client, None)
            self._turns[task.request.client] = self._turn
            if len(self._turns) > _MAX_TURNS:
                del self._turns[next(iter(self._turns))]
        return task

    def _run(self) -> None:
        while (task := self._next()) is not None:
            if task.connection.closed:
                continue
            made = guarded(task.later.make, task.request)
            # here in the lane, because compressing a large page takes time too
            self._done(
                task, made if isinstance(made, Later) else compose(made, task.request, task.connection.stays)
            )


def guarded(make: Callable[[], Response | Later], request: Request) -> Response | Later:
    """The result of ``make``; an exception in it is logged and becomes an error answer."""
    try:
        return make()
    except Exception as error:
        log.error("cannot answer %r: %s: %s", request.path, type(error).__name__, error, exc_info=error)
        return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error\n")
