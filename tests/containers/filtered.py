"""Sets a unit's system call filters without a service manager.

As a program: ``filtered.py PROGRAM COMMAND...`` becomes the command under a BPF program (seccomp(2), in
base64); the process must have no_new_privs.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable

#: linux/prctl.h, linux/seccomp.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


def program(filters: Iterable[str], families: Iterable[str]) -> str:
    """What ``SystemCallFilter=`` (an allow list, then lines that begin with ~) and
    ``RestrictAddressFamilies=`` come to, with EPERM for the rest; systemd.exec(5)."""
    import pyseccomp

    calls: set[str] = set()
    for line in filters:
        named = {call for word in line.removeprefix("~").split() for call in _calls(word)}
        calls = calls - named if line.startswith("~") else calls | named
    made = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    for call in sorted(calls - {"socket"}):
        try:
            made.add_rule(pyseccomp.ALLOW, call)
        except (OSError, RuntimeError, ValueError):
            continue  # of another architecture, or newer than the library
    for family in families:
        made.add_rule(pyseccomp.ALLOW, "socket", pyseccomp.Arg(0, pyseccomp.EQ, getattr(socket, family)))
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return base64.b64encode(file.read()).decode()


def _calls(word: str) -> set[str]:
    """A call, or a set of them by systemd's own words."""
    if not word.startswith("@"):
        return {word}
    said = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    members = [line.strip() for line in said.splitlines()[1:]]
    return {call for one in members if one and not one.startswith("#") for call in _calls(one)}


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _main(coded: str, *command: str) -> None:
    code = base64.b64decode(coded)
    libc = ctypes.CDLL(None, use_errno=True)
    asked = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(asked), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
    os.execvp(command[0], command)  # noqa: S606 -- that is what it is for


if __name__ == "__main__":
    _main(*sys.argv[1:])
