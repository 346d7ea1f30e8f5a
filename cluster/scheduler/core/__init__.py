"""The scheduler's core: which worker gets which frames, and which result counts. Standard library only.

`tasks` owns every transition of a task and `phases` every transition of a job; `scheduler` holds the commands.
"""

from cluster.scheduler.core.jobs import Job
from cluster.scheduler.core.records import Counts, Decided, Growth, JobOrder, Record, TaskLease, WorkerOrder
from cluster.scheduler.core.rules import Rules
from cluster.scheduler.core.scheduler import Scheduler
from cluster.scheduler.core.workers import Worker

__all__ = [
    "Counts",
    "Decided",
    "Growth",
    "Job",
    "JobOrder",
    "Record",
    "Rules",
    "Scheduler",
    "TaskLease",
    "Worker",
    "WorkerOrder",
]
