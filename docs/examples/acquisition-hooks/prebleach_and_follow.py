"""A PYMEAcquire protocol: dark frames, pre-bleaching, and a job that follows the series from there on.

Put it, with follow_job.py beside it, into the folder of your protocols, and change the tasks to what your microscope does.
"""

import pathlib
import sys

from PYME.Acquire.protocol import T, TaskListProtocol, scope

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from follow_job import post_in_background

LASER_ON = 20
DATA_STARTS_AT = 60


def localise_from_here():
    """Do what the Analyse button does, on the cluster."""
    post_in_background(scope.spoolController.spooler.filename, DATA_STARTS_AT)


taskList = [
    T(-1, scope.turnAllLasersOff),
    T(LASER_ON, scope.l642.TurnOn),
    T(DATA_STARTS_AT + 1, localise_from_here),
    T(sys.maxsize, scope.turnAllLasersOff),
]

metaData = [
    ("Protocol.DarkFrameRange", (0, LASER_ON)),
    ("Protocol.DataStartsAt", DATA_STARTS_AT),
]

PROTOCOL = TaskListProtocol(taskList, metaData)
