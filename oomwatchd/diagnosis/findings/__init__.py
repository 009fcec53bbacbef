"""Plug room: one finding a module. ``diagnose()`` asks each of them; a module is found by being here.

A finding module has

* a docstring: its page in docs/findings.md and in ``oomwatchd explain ID``,
* ``ID`` and ``TITLE``,
* ``find(case)``: a Finding, several, or None. It may raise: the others go on without it.

Modules whose name begins with ``_`` are shared parts, not findings.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType

import msgspec

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.summary import summarize
from oomwatchd.plugs import plugs
from oomwatchd.records.capture import OomCapture
from oomwatchd.records.report import Finding, OomReport, Severity

__all__ = ["Case", "Diagnostic", "diagnose", "diagnostics", "summarize"]

_RANK: dict[Severity, int] = {"critical": 0, "warning": 1, "info": 2}


class Diagnostic(msgspec.Struct, frozen=True):
    """One finding module: its id, title, page of documentation and its question to a case."""

    id: str
    title: str
    module: ModuleType
    find: Callable[[Case], Finding | Iterable[Finding] | None]

    @property
    def page(self) -> str:
        """The module's docstring."""
        import inspect  # 0.7 MiB that the daemon has no use for

        return inspect.cleandoc(self.module.__doc__ or "")


def _diagnostic(module: ModuleType) -> Diagnostic:
    return Diagnostic(module.ID, module.TITLE, module, module.find)


# loaded here and now: under memory pressure nothing new is read from disk
_DIAGNOSTICS = tuple(_diagnostic(module) for module in plugs(__name__).values())


def diagnostics() -> tuple[Diagnostic, ...]:
    """All findings there are, by id."""
    return _DIAGNOSTICS


def diagnose(
    report: OomReport,
    capture: OomCapture | None = None,
    *,
    on_failure: Callable[[str, Exception], None] | None = None,
) -> tuple[Finding, ...]:
    """The diagnosis of a report: the gravest first, equals by id and then in the finding's own order.

    Never raises. A finding that fails is left out, named in a ``finding_failed`` entry and handed to
    ``on_failure(id, error)``.
    """
    case = Case(report, capture)
    found: list[Finding] = []
    for diagnostic in _DIAGNOSTICS:
        try:
            answer = diagnostic.find(case)
            found += [] if answer is None else [answer] if isinstance(answer, Finding) else list(answer)
        except Exception as error:  # one module's fault must not cost the event
            found.append(_failed(diagnostic.id, error))
            if on_failure is not None:
                on_failure(diagnostic.id, error)
    return tuple(sorted(found, key=lambda f: (_RANK[f.severity], -_weight(f))))


def _weight(finding: Finding) -> float:
    """Among equals of severity what holds most of the memory speaks first; a finding that measures no
    share stands in the middle."""
    share = finding.evidence.get("share_ratio")
    return share if isinstance(share, float) else 0.5


def _failed(finding: str, error: Exception) -> Finding:
    return Finding(
        id="finding_failed",
        severity="info",
        title="A part of the diagnosis failed",
        explanation=f"The finding {finding} could not be computed for this report ({type(error).__name__}). "
        "The rest of the diagnosis is not affected; this is a fault of oomwatchd worth reporting.",
        evidence={"finding": finding, "error": type(error).__name__},
    )
