"""Slurm: ``slurm/uid_UID/job_JOB/step_STEP`` (v1), ``slurmstepd.scope/job_JOB/step_STEP`` (v2), by
``src/plugins/cgroup``."""

from __future__ import annotations

from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.escape import harmless_name


def find(place: Place) -> Owned | None:
    if "slurm" not in place.path:
        return None
    at = next((at for at, segment in enumerate(place.segments) if _is_slurm(segment)), None)
    if at is None:
        return None
    below = place.segments[at + 1 :]
    job = next((segment[4:] for segment in below if segment.startswith("job_") and segment[4:]), None)
    if job is None:
        return None
    step = next((segment[5:] for segment in below if segment.startswith("step_") and segment[5:]), None)
    name = job if step is None else f"{job}.{step}"
    return Owned(
        "Slurm job",
        name,
        f"the memory of Slurm job {harmless_name(name)}",
        "sbatch --mem or --mem-per-cpu; at most MaxMemPerNode",
    )


def _is_slurm(segment: str) -> bool:
    return segment == "slurm" or segment.startswith("slurm_") or segment.endswith("slurmstepd.scope")
