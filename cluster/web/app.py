"""The page's application: the login, what browsers load by address, and NiceGUI's views behind one door."""

from __future__ import annotations

from importlib import import_module, resources
from typing import Final

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from nicegui import core, ui

from cluster.http import Gate, install
from cluster.web.desktop_routes import router as desktop
from cluster.web.doorway import Doorway, install_login
from cluster.web.pictures import router
from cluster.web.uploads import reads_itself
from cluster.web.uploads import router as uploads
from cluster.web.visitors import Visitors

VIEWS: Final = ("jobs", "job", "series", "analyse", "cluster_view")


def create_app(visitors: Visitors, gate: Gate, *, cookie: str) -> FastAPI:
    """Build the application; once a process, as NiceGUI keeps its own in a module."""
    app = FastAPI(title="clusterofone page", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Doorway, visitors=visitors, cookie=cookie)
    gate.reads_itself = reads_itself
    install(app, gate, role="web")
    install_login(app, visitors, cookie, insecure=gate.insecure)
    app.include_router(router)
    app.include_router(uploads)
    app.include_router(desktop)
    app.mount("/page", StaticFiles(packages=[("cluster.web", "static")]))
    for view in VIEWS:
        import_module(f"cluster.web.views.{view}")
    ui.run_with(
        app,
        title="clusterofone",
        favicon=_favicon(),
        dark=None,
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=30.0,
    )
    core.sio.eio.max_http_buffer_size = 1 << 20
    return app


def _favicon() -> str:
    return resources.files("cluster.web").joinpath("static", "icon.svg").read_text(encoding="utf-8")
