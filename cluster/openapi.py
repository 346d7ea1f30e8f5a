"""What an app's OpenAPI document says beyond what FastAPI finds out: the errors as they are, and raw bodies."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Response

from cluster.protocol import Problem

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_PROBLEM: Final = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ERRORS: Final = {
    "4XX": {
        "description": "The caller must change something; `code` is stable, `detail` for a person.",
        "content": _PROBLEM,
    },
    "503": {"description": "Try again, with back-off.", "content": _PROBLEM},
    "507": {"description": "The disk is full; nothing half-written was kept.", "content": _PROBLEM},
}


def document_errors(app: FastAPI) -> None:
    """Have the document name the errors that every route may answer with, in place of FastAPI's own, which none does."""
    without = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _correct(without())
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def raw_reply(*media_types: str, **headers: str) -> dict[str, Any]:
    """Return what a route says of a reply that is no JSON; `headers` are described by name, `_` for `-`."""
    described = {
        name.replace("_", "-"): {"description": text, "required": True, "schema": {"type": "string"}}
        for name, text in headers.items()
    }
    content = {media_type: _schema(media_type) for media_type in media_types}
    reply = {"description": "The bytes.", "content": content} | ({"headers": described} if described else {})
    return {"response_class": Response, "responses": {200: reply}}


def raw_body(*media_types: str) -> dict[str, Any]:
    """Return what a route says of a body that it reads by itself."""
    content = {media_type: _schema(media_type) for media_type in media_types}
    return {"openapi_extra": {"requestBody": {"required": True, "content": content}}}


def _schema(media_type: str) -> dict[str, Any]:
    if media_type in {"text/event-stream", "application/yaml"}:
        return {}  # OpenAPI has no schema for events, nor for several YAML documents in one
    return {"schema": {"type": "string"} | ({} if media_type.startswith("text/") else {"format": "binary"})}


def _correct(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = Problem.model_json_schema()
    for operations in document["paths"].values():
        for operation in operations.values():
            replies = operation["responses"]
            replies.pop("422", None)
            for status, reply in _ERRORS.items():
                replies.setdefault(status, reply)
