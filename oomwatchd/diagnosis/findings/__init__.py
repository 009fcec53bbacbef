"""The findings, one a module. ``diagnose()`` asks each of them; every module in this package is loaded.

A finding module has

* a docstring: its page in docs/findings.md and in ``oomwatchd explain ID``,
* ``ID`` and ``TITLE``,
* ``find(case)``: returns a Finding, a Claim (a Finding that also adds to the summary line and to the
  advice), several of them, or None. If it raises, the other findings still run.

Modules whose name begins with ``_`` are shared parts, not findings.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType

import msgspec

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Claim, Tier, ranked
from oomwatchd.diagnosis.summary import summarize
from oomwatchd.plugs import plugs
from oomwatchd.records.capture import OomCapture
from oomwatchd.records.report import Finding, OomReport, Severity
from oomwatchd.words.escape import harmless

__all__ = ["Case", "Diagnosis", "Diagnostic", "diagnose", "diagnose_case", "diagnostics"]

#: What a finding module's find() returns.
Answer = Finding | Claim | Iterable[Finding | Claim] | None

_RANK: dict[Severity, int] = {"critical": 0, "warning": 1, "info": 2}


class Diagnostic(msgspec.Struct, frozen=True):
    """One finding module: its id, title, documentation page and ``find()`` function."""

    id: str
    title: str
    module: ModuleType
    find: Callable[[Case], Answer]

    @property
    def page(self) -> str:
        """The module's docstring."""
        import inspect  # costs 0.7 MiB; the daemon never needs it

        return inspect.cleandoc(self.module.__doc__ or "")


def _diagnostic(module: ModuleType) -> Diagnostic:
    return Diagnostic(module.ID, module.TITLE, module, module.find)


# Loaded at import time: under memory pressure nothing may have to be read from disk.
_DIAGNOSTICS = tuple(_diagnostic(module) for module in plugs(__name__).values())


def diagnostics() -> tuple[Diagnostic, ...]:
    """All findings, sorted by id."""
    return _DIAGNOSTICS


class Diagnosis(msgspec.Struct, frozen=True):
    """The result for one report: the findings, with the cause first, and the one-line summary."""

    findings: tuple[Finding, ...]
    summary: str


def diagnose(report: OomReport, capture: OomCapture | None = None) -> Diagnosis:
    """Diagnose a report: :func:`diagnose_case` of its case."""
    return diagnose_case(Case(report, capture))


def diagnose_case(case: Case) -> Diagnosis:
    """Diagnose a case.

    The first finding is the one whose advice removes the cause. The finding that names the cause follows,
    if it is another one. The rest are sorted by severity, then by the share of memory that they measure.

    Never raises. A finding that fails is left out and named in a ``finding_failed`` entry.
    """
    claims: list[Claim] = []
    for diagnostic in _DIAGNOSTICS:
        try:
            claims += _claims(diagnostic.find(case))
        except Exception as error:  # one module's fault must not cost the event
            claims.append(Claim(finding=_failed(diagnostic.id, error)))
    causes = [c for c in ranked(claims) if c.cause is not None and c.cause.tier is not Tier.UNSEEN]
    first = causes[:1]
    lever = next((c for c in causes if c.finding.advice), None)
    if lever is not None and lever not in first:
        first = [lever, *first]
    rest = sorted(
        (c.finding for c in claims if c not in first), key=lambda f: (_RANK[f.severity], -_weight(f))
    )
    return Diagnosis(
        tuple(_plain(f) for f in (*(c.finding for c in first), *rest)), summarize(case.report, claims)
    )


def _plain(finding: Finding) -> Finding:
    """Escape the texts: an attacker can choose process and cgroup names, and none may control a terminal."""
    texts = (finding.title, finding.explanation, finding.advice)
    if all(text.isascii() and text.isprintable() for text in texts):
        return finding
    title, explanation, advice = map(harmless, texts)
    return msgspec.structs.replace(finding, title=title, explanation=explanation, advice=advice)


_ONE = (Finding, Claim)


def _claims(answer: Answer) -> list[Claim]:
    if answer is None:
        return []
    said = [answer] if isinstance(answer, _ONE) else answer
    return [one if isinstance(one, Claim) else Claim(finding=one) for one in said]


def _weight(finding: Finding) -> float:
    """The sort key within one severity: the share of memory. A finding that measures no share gets 0.5."""
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
