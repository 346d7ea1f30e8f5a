"""What every route of the scheduler asks for: the service, and who may come in."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from cluster.http import require
from cluster.scheduler.service import Service

VIEWER = Depends(require("viewer", "submitter"))
SUBMITTER = Depends(require("submitter"))
WORKER = Depends(require("worker"))
OWNER = Depends(require())


async def _service(request: Request) -> Service:  # async, lest FastAPI call it in a thread
    service: Service = request.app.state.service
    return service


Scheduler = Annotated[Service, Depends(_service)]
