"""Watching a job with a progress bar, and saying how it ended."""

from __future__ import annotations

from typing import Final

from cluster.client import Client
from cluster.commands import console
from cluster.protocol import Job

ENDED: Final = frozenset({"done", "done_with_errors", "cancelled", "failed"})
_FAILED_RANGES_SHOWN: Final = 10


def follow(client: Client, job: Job, *, own_workers: bool = False) -> Job:
    """Show a job's progress until it ends; return it as it ended. `own_workers`: they are starting, do not ask."""
    if job.state in ENDED:
        return job
    if not own_workers:
        say_if_nobody_works(client)
    with console.progress() as bar:
        shown = bar.add_task(job.name, total=job.frames.total, rates="")
        for seen in client.watch(job.id):
            done = seen.frames.localised + seen.frames.skipped + seen.frames.failed
            bar.update(shown, completed=done, total=seen.frames.total, rates=_rates(seen))
            if seen.state in ENDED:
                break
    return client.job(job.id)


def say_if_nobody_works(client: Client) -> None:
    """Tell that a job will wait, when there is no worker to do it."""
    workers = client.workers()
    if any(worker.state in {"idle", "working"} for worker in workers):
        return
    if draining := sum(worker.state == "draining" for worker in workers):
        console.say(
            f"no worker takes work, {draining} of them because they are draining; the job waits. "
            "clusterofone drain lists them, clusterofone drain NAME --undo gives one work again"
        )
        return
    console.say(
        "no worker is there yet (those of a cluster just started may be compiling); the job waits for one"
    )


def summary(job: Job) -> str:
    """Say in words how a job stands."""
    frames = job.frames
    parts = [f"{job.name}: {job.state.replace('_', ' ')}"]
    parts.append(
        f"{frames.localised} frames localised, {frames.skipped} skipped, {frames.failed} failed of {frames.total}"
    )
    parts.append(f"{job.localisations} localisations")
    if job.started and job.finished and job.finished > job.started:
        parts.append(f"{job.finished - job.started:.1f} s")
    lines = [", ".join(parts)]
    lines += [f"note: {note}" for note in job.notes]
    if job.output:
        lines.append(f"result: {job.output}")
    lines += failures(job)
    return "\n".join(lines)


def failures(job: Job) -> list[str]:
    """Say which frames failed, and why."""
    lines = [f"error: {job.error}"] if job.error else []
    for failed in job.failed_frames[:_FAILED_RANGES_SHOWN]:
        which = (
            f"frame {failed.start}"
            if failed.stop == failed.start + 1
            else f"frames {failed.start}-{failed.stop - 1}"
        )
        lines.append(f"failed: {which}: {failed.reason}")
    if len(job.failed_frames) > _FAILED_RANGES_SHOWN:
        lines.append(f"failed: {len(job.failed_frames) - _FAILED_RANGES_SHOWN} more ranges (see --json)")
    return lines


def _rates(job: Job) -> str:
    if not job.rate_frames_per_s:
        return (
            "running" if job.state == "running" else "workers are starting (the first time compiles the fits)"
        )
    done = max(1, job.frames.localised)
    each = job.localisations / done
    return f"{job.rate_frames_per_s:.0f} frames/s  {job.rate_frames_per_s * each:.0f} localisations/s"
