"""Ask a clusterofone cluster to localise a series while it is being written. Standard library only, no installation.

Three environment variables of the microscope's computer say where the cluster is:

CLUSTEROFONE_SCHEDULER   its URL, such as http://lab-pc-3:15400
CLUSTEROFONE_TOKEN       what `clusterofone token --role submitter` prints there
CLUSTEROFONE_ROOT        the folder here that the cluster's data server serves (its --root, or where that is mounted)
"""

import json
import os
import pathlib
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

TRIES = 20
PAUSE_S = 3.0


def series_name(path):
    """Return how the cluster names a file or folder under CLUSTEROFONE_ROOT."""
    root = pathlib.Path(os.environ["CLUSTEROFONE_ROOT"]).resolve()
    return pathlib.Path(path).resolve().relative_to(root).as_posix()


def post_follow_job(path, data_starts_at, metadata=None, analysis=None):
    """Submit a job that follows the series at `path` from frame `data_starts_at` on; return the job as a dict.

    A scheduler that is away, or a series of which not one frame can be read yet, is tried again for a minute. The same
    key is sent each time, so there is one job however often it is sent.
    """
    name = series_name(path)
    body = {
        "series": name,
        "follow": True,
        "metadata": {"Protocol.DataStartsAt": data_starts_at, **(metadata or {})},
        "analysis": analysis or {},
    }
    request = urllib.request.Request(
        os.environ["CLUSTEROFONE_SCHEDULER"].rstrip("/") + "/api/v1/jobs",
        data=json.dumps(body).encode("utf-8"),
        headers={
            "Authorization": "Bearer " + os.environ["CLUSTEROFONE_TOKEN"],
            "Content-Type": "application/json",
            "Idempotency-Key": uuid.uuid4().hex,
        },
    )
    for left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            if error.code not in (404, 502, 503, 504) or not left:  # 404: the file is not there yet
                raise RuntimeError(f"the cluster refused {name}: {said}") from error
        except OSError:
            if not left:
                raise
        time.sleep(PAUSE_S)


def post_in_background(path, data_starts_at, metadata=None, analysis=None):
    """Do so in a thread: the acquisition must not wait. What goes wrong is said on standard error, and stops nothing."""

    def post():
        try:
            job = post_follow_job(path, data_starts_at, metadata, analysis)
            sys.stderr.write(f"clusterofone: job {job['id']} follows {job['series']}\n")
        except Exception as error:
            sys.stderr.write(f"clusterofone: no job was started: {error}\n")

    thread = threading.Thread(target=post, name="clusterofone", daemon=True)
    thread.start()
    return thread
