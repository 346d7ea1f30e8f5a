"""What is wrong with a message, in words: what pydantic finds, without its way of speaking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from cluster.errors import Invalid

_PREFIX: Final = "Value error, "  # pydantic's, before what a validator of ours says
_TOLD: Final = 5
_LISTED: Final = 50


def invalid(found: Iterable[Mapping[str, Any]]) -> Invalid:
    """Return the error of what pydantic found: each `loc` is the path of a field, an empty one the whole message."""
    faults = [
        {"field": ".".join(map(str, fault["loc"])), "message": fault["msg"].removeprefix(_PREFIX)}
        for fault in found
    ]
    said = "; ".join(f"{fault['field'] or 'body'}: {fault['message']}" for fault in faults[:_TOLD])
    return Invalid(said, errors=faults[:_LISTED])


def invalid_message(error: ValidationError) -> Invalid:
    """Return the error of a message that cannot be built; names its first field that is wrong."""
    refused = invalid(error.errors(include_url=False, include_input=False))
    return Invalid(refused.detail, field=refused.facts["errors"][0]["field"], **refused.facts)
