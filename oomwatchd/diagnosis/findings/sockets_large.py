"""Buffers of network sockets fill the cgroup.

cgroup v2 charges the queues of TCP and UDP sockets to the cgroup of their owner (``sock`` in memory.stat),
separately from other kernel memory. The queues grow when the peer or the program itself does not read what
has arrived, or when one side sends faster than the other reads.

``ss -tm`` shows the queues (Recv-Q, skmem). ``net.ipv4.tcp_rmem`` and ``tcp_wmem`` limit each socket,
SO_RCVBUF limits the buffer that a program requests.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import HOLDS, Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.levers import raised_first
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size

ID = "sockets_large"
TITLE = "Socket buffers fill the cgroup"

#: Share of the limit.
_LARGE = 0.1


def find(case: Case) -> Claim | None:
    whole, sock = case.ledger.whole_bytes, case.ledger.held("sock")
    if not case.in_cgroup or not whole or sock is None or sock < _LARGE * whole:
        return None
    text = f"buffers of network sockets hold {case.ledger.percent(sock)} of it"
    return Claim(
        finding=Finding(
            id=ID,
            severity="critical" if sock >= HOLDS * whole else "warning",
            title=TITLE,
            explanation=f"Socket buffers hold {size(sock)}, {percent(sock, whole)} of the cgroup's limit: "
            "data "
            "that has arrived and is not read, or is sent faster than it is taken.",
            evidence={"sock_bytes": sock, "whole_bytes": whole, "share_ratio": case.ledger.share(sock)},
            advice=raised_first(
                case,
                "have less queued: ss -tm (in its network namespace) shows whose queues are full; fewer "
                "connections, SO_RCVBUF or net.ipv4.tcp_rmem bound them",
            ),
        ),
        cause=Cause(tier=Tier.HELD, text=text, excess_bytes=sock) if sock >= HOLDS * whole else None,
    )
