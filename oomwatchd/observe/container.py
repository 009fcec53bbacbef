"""Names of this host's containers: read when a container appears, and kept.

A victim's files may be gone with it. Where only root may read them, a helper does
(``oomwatchd-names.socket``). It is asked when a container's cgroup appears that has no other source of its
name, never for a kill: nothing is started while memory is short.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from oomwatchd.diagnosis.attribution import Owner, owner_of
from oomwatchd.observe.runtimes import conmon_names, is_id, kubernetes_names, name_of
from oomwatchd.records.capture import OomCapture, ProcessFacts

#: Names kept: about 200 bytes each.
MOST = 4096
#: Ids in one request to the helper.
MOST_ASKED = 1024
#: below the host's root
HELPER = "run/oomwatchd-names.socket"
HELPER_SECONDS = 30.0
#: An id without a name is asked for once more after so long.
AGAIN_SECONDS = 1.0
#: where nothing keeps the names from being read
NOT_FOUND = "no link, conmon or file of a runtime tells it"
_ANSWER_BYTES = 1024 * 1024
#: whose containers have a conmon
_CONMON = frozenset({"podman", "cri-o", None})


def ask_helper(ids: Iterable[str], address: str) -> dict[str, str]:
    """The names that the helper finds. Raises OSError where there is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(HELPER_SECONDS)
        connection.connect(address)
        connection.sendall("".join(f"{one}\n" for one in ids).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while len(answer) < _ANSWER_BYTES and (piece := connection.recv(65536)):
            answer += piece
    try:
        return msgspec.json.decode(answer, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise OSError(f"{address}: {error}") from error


class ContainerNames:
    """The names of one host. ``obstacle`` says why some are not known; None while all are known or none is
    needed.

    May be asked from any thread; :meth:`learn` belongs to one. Nothing here raises.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        proc: Path = Path("/proc"),
        ask: Callable[[Iterable[str], str], dict[str, str]] = ask_helper,
    ) -> None:
        self._root = root
        self._proc = proc
        self._ask = ask
        self._lock = threading.Lock()
        #: the least recently used first
        self._known: dict[str, str] = {}
        #: paths that were there at the last call
        self._seen: set[str] = set()
        #: looked for at a kill without success since the last call of learn(): not looked for again
        self._missed: dict[str, None] = {}
        #: the same, for the helper at the next call of learn(): a container that lived for a moment
        self._late: dict[str, Owner] = {}
        #: ids for the helper, and whether it is being asked
        self._wanted: dict[str, None] = {}
        self._asking: threading.Thread | None = None
        self.obstacle: str | None = None

    def get(self, container_id: str) -> str | None:
        """The name; None where it is not known."""
        with self._lock:
            name = self._known.pop(container_id, None)
            if name is not None:
                self._known[container_id] = name
        return name

    def learn(self, paths: Iterable[str]) -> None:
        """Read the names of new containers among these cgroups, and of those that were gone before they could
        be among them. Names from the helper come later, in a thread of its own."""
        self._missed.clear()
        now = set(paths)
        owners = [owner_of(path) for path in now - self._seen]
        with self._lock:
            late = self._late.copy()
            self._late.clear()
        if late:
            asked = {owner_of(path).container_id for path in self._seen}
            owners += [owner for container_id, owner in late.items() if container_id not in asked]
        self._seen = now
        new = {one.container_id: one for one in owners if one.container_id and is_id(one.container_id)}
        wanted = {container_id: one for container_id, one in new.items() if self.get(container_id) is None}
        if not wanted:
            return
        self._keep(self._told(wanted))
        with self._lock:
            self._wanted |= dict.fromkeys(one for one in wanted if one not in self._known)
            if not self._wanted or (self._asking is not None and self._asking.is_alive()):
                return
            self._asking = threading.Thread(target=self._ask_for_all, name="names", daemon=True)
        try:
            self._asking.start()
        except RuntimeError as error:
            self._asking, self.obstacle = None, str(error)

    def with_names(self, capture: OomCapture) -> OomCapture:
        """The same capture, with the container's name at each process."""
        named = tuple(self._named(facts) for facts in capture.processes)
        return capture if named == capture.processes else msgspec.structs.replace(capture, processes=named)

    def named(self, paths: Iterable[str]) -> dict[str, str]:
        """Names by id of the containers that these cgroups are of, as far as they are known."""
        found = {}
        for owner in map(owner_of, paths):
            if owner.container_id is not None and (name := self._name(owner.container_id, owner)) is not None:
                found[owner.container_id] = name
        return found

    def wait(self) -> None:
        """Until the helper has answered."""
        asking = self._asking
        if asking is not None:
            asking.join()

    def _named(self, facts: ProcessFacts) -> ProcessFacts:
        owner = owner_of(facts.cgroup) if facts.cgroup else None
        if owner is None or owner.container_id is None or facts.container_name is not None:
            return facts
        return msgspec.structs.replace(facts, container_name=self._name(owner.container_id, owner))

    def _name(self, container_id: str, owner: Owner) -> str | None:
        name = self.get(container_id)
        if name is None and is_id(container_id) and container_id not in self._missed:
            # it ended before it was seen: its name may still be read without a process
            self._keep(self._told({container_id: owner}))
            name = self.get(container_id)
            if name is None and len(self._missed) < MOST:
                self._missed[container_id] = None
                with self._lock:
                    self._late[container_id] = owner
        return name

    def _told(self, wanted: dict[str, Owner]) -> dict[str, str]:
        """What can be read without the helper."""
        logs = kubernetes_names(self._root)
        found = {one: logs[one] for one in wanted if one in logs}
        users = {
            container_id: owner.user_uid or 0
            for container_id, owner in wanted.items()
            if container_id not in found and owner.container_runtime in _CONMON
        }
        if users:
            found |= conmon_names(self._proc, users.items())
        for container_id in wanted.keys() - found.keys():
            name = name_of(container_id, self._root)
            if name is not None:
                found[container_id] = name
        return found

    def _ask_for_all(self) -> None:
        again: dict[str, None] = {}
        while True:
            with self._lock:
                if not self._wanted and not again:
                    self._asking = None
                    return
                ids = list(self._wanted or again)[:MOST_ASKED]
                new = bool(self._wanted)
                for one in ids:
                    (self._wanted if new else again).pop(one)
            if not new:
                time.sleep(AGAIN_SECONDS)
            names = self._answer(ids)
            self._keep(names)
            if new:  # the runtime may write its file a moment later
                again |= dict.fromkeys(one for one in ids if one not in names)

    def _answer(self, ids: list[str]) -> dict[str, str]:
        try:
            names = self._ask(ids, str(self._root / HELPER))
        except OSError as error:
            why = error.strerror or error
            self.obstacle = f"{self._root / HELPER}: {why}; oomwatchd doctor says how to mend it"
            return {}
        self.obstacle = None
        return names

    def _keep(self, names: dict[str, str]) -> None:
        with self._lock:
            self._known |= names
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]
