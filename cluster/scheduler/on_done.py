"""Running the owner's own command when a job has ended: mail, chat, the next step.

The command comes from the configuration of whoever started the scheduler, never from a job. There is no shell: what a
job is called cannot become part of a command. The job is told in the environment, and whole, as JSON, on the
command's standard input.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cluster.errors import ClusterError
from cluster.protocol import Job
from cluster.scheduler.state import State

logger = logging.getLogger(__name__)

_LIMIT_S: Final = 60.0
_SAID_BYTES: Final = 2000
_SECRETS: Final = ("CLUSTEROFONE_TOKEN", "CLUSTEROFONE_PARENT_PIPE")


@dataclass(frozen=True)
class Command:
    """What to run, in which environment, and for how long at most."""

    words: Sequence[str]
    environ: Mapping[str, str]
    limit_s: float = _LIMIT_S


class OnDone:
    """Runs a command after each job's end, once that is on the disk."""

    def __init__(self, state: State, command: Command | None) -> None:
        self._state = state
        self._command = command
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job_id: str) -> None:
        """Run the command for a job that has just ended."""
        if self._command is None or self._state.job(job_id).brief.kind != "localise":
            return
        task = asyncio.create_task(self._run(job_id, self._command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for commands that are running; each has its limit."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, job_id: str, command: Command) -> None:
        try:
            await self._state.journal.write([])  # nobody is told of an end that a crash could undo
        except ClusterError as error:
            logger.warning("job %s: on_done waits in vain for the disk: %s", job_id, error)
            return
        problem = await run_command(command, self._state.view(job_id))
        if problem is not None:
            logger.warning("job %s: on_done: %s", job_id, problem)
            if job_id in self._state.known:
                self._state.job(job_id).progress.notes.append(f"on_done: {problem}")
                self._state.signals.changed(job_id)


async def run_command(command: Command, job: Job) -> str | None:
    """Run a command for a job; return what went wrong, or None."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command.words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment(command.environ, job),
        )
    except OSError as error:
        return f"{command.words[0]} cannot be run: {error.strerror or error}"
    try:
        said, _ = await asyncio.wait_for(process.communicate(job.model_dump_json().encode()), command.limit_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"{command.words[0]} took longer than {command.limit_s:g} s and was ended"
    text = said[-_SAID_BYTES:].decode("utf-8", "replace").strip()
    logger.info("job %s: on_done ended with %s: %r", job.id, process.returncode, text)
    if process.returncode == 0:
        return None
    last = text.splitlines()[-1] if text else "it said nothing"
    return f"{command.words[0]} ended with status {process.returncode}: {last}"


def environment(environ: Mapping[str, str], job: Job) -> dict[str, str]:
    """Return what the command may know: the surroundings without our secrets, and the job."""
    told = {
        "CLUSTEROFONE_JOB_ID": job.id,
        "CLUSTEROFONE_JOB_NAME": job.name,
        "CLUSTEROFONE_JOB_STATE": job.state,
        "CLUSTEROFONE_JOB_SERIES": job.series,
        "CLUSTEROFONE_JOB_OUTPUT": job.output or "",
        "CLUSTEROFONE_JOB_ERROR": job.error or "",
        "CLUSTEROFONE_JOB_LOCALISATIONS": str(job.localisations),
    }
    kept = {name: value for name, value in environ.items() if name not in _SECRETS}
    return {**kept, **{name: value.replace("\0", "") for name, value in told.items()}}
