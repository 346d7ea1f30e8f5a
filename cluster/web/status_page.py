"""A plain page of jobs and workers: three static files that use the public REST interface and nothing else."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import FastAPI, Response

_FILES: Final = {
    "/": ("status_page.html", "text/html; charset=utf-8"),
    "/status.css": ("status.css", "text/css; charset=utf-8"),
    "/status.js": ("status.js", "text/javascript; charset=utf-8"),
}
_POLICY: Final = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"


def install_status_page(app: FastAPI) -> None:
    """Serve the page at `/`; its data need a token, the files themselves do not."""
    for path, (name, media_type) in _FILES.items():
        _serve(app, path, resources.files("cluster.web").joinpath(name).read_bytes(), media_type)


def _serve(app: FastAPI, path: str, content: bytes, media_type: str) -> None:
    async def page() -> Response:
        return Response(content, media_type=media_type, headers={"content-security-policy": _POLICY})

    app.add_api_route(path, page, include_in_schema=False)
