"""What this machine is called in everything that leaves it."""

from __future__ import annotations

import os
import socket


def host_name() -> str:
    """``$NODE_NAME`` where it is set: within a pod the kernel's own answer is the pod's name, and Kubernetes
    hands the node's down by this variable (``spec.nodeName``); else gethostname(2)."""
    return os.environ.get("NODE_NAME") or socket.gethostname()
