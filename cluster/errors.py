"""The one tree of errors, translated at two borders: core → HTTP, and HTTP → client.

ClusterError
├── CallerError            the caller must change something; do not retry
│   ├── Invalid            400  a field, file or frame is wrong; names it
│   ├── Unauthorised       401  no token, or one nobody issued
│   ├── Forbidden          403  a token whose role may not do this
│   ├── NotFound           404
│   ├── NotAllowed         405
│   ├── Conflict           409  what was asked contradicts what is there
│   │   ├── Superseded     409  another attempt of this task has been committed
│   │   └── VersionMismatch 409 a worker whose versions differ; says the command that mends it
│   ├── Gone               410  the job has ended, its leases with it
│   ├── TooLarge           413
│   ├── Misdirected        421  a Host header that is not ours (DNS rebinding)
│   ├── Untrusted          421  who answers does not show the certificate of whom we mean
│   └── ChecksumMismatch   422  the bytes that arrived are not the bytes that were sent
├── TransientError         503  try again, with back-off
│   ├── Unavailable        503  nobody there, or not ready
│   ├── TooManyRequests    429
│   └── OutOfSpace         507  the disk is full; nothing half-written was kept
└── Internal               500  our fault

On the wire an error is an RFC 9457 problem body with the stable `code` of its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class ClusterError(Exception):
    """Root of everything this package raises on purpose.

    `detail` is the sentence for a person; `facts` are machine-readable extras of the problem body.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts

    def problem(self) -> dict[str, Any]:
        """Return the RFC 9457 body of this error."""
        title = self.code.replace("_", " ")
        body = {"type": "about:blank", "title": title, "status": self.status, "code": self.code}
        return {**self.facts, **body, "detail": self.detail}


class Internal(ClusterError):
    """A fault of ours."""


class CallerError(ClusterError):
    """The caller must change something; trying again as it is will not help."""

    code = "invalid"
    status = 400


class Invalid(CallerError):
    """A field, file or frame is wrong."""


class Unauthorised(CallerError):
    """No token, or one that nobody issued."""

    code = "unauthorised"
    status = 401


class Forbidden(CallerError):
    """A token whose role may not do this."""

    code = "forbidden"
    status = 403


class NotFound(CallerError):
    """There is no such thing."""

    code = "not_found"
    status = 404


class NotAllowed(CallerError):
    """The path exists, the method does not."""

    code = "not_allowed"
    status = 405


class Conflict(CallerError):
    """What was asked contradicts what is there."""

    code = "conflict"
    status = 409


class Superseded(Conflict):
    """Another attempt of this task has been committed; throw this result away."""

    code = "superseded"


class VersionMismatch(Conflict):
    """A worker whose versions differ from the scheduler's."""

    code = "version_mismatch"


class Gone(CallerError):
    """The job has ended, and its leases with it."""

    code = "gone"
    status = 410


class TooLarge(CallerError):
    """A body, file or array beyond its limit."""

    code = "too_large"
    status = 413


class Misdirected(CallerError):
    """A request for a host name that is not ours."""

    code = "misdirected"
    status = 421


class Untrusted(CallerError):
    """Who answers does not show the certificate that the token names, or would hear the token in the clear."""

    code = "untrusted"
    status = 421


class ChecksumMismatch(CallerError):
    """The bytes that arrived are not the bytes that were sent."""

    code = "checksum_mismatch"
    status = 422


class TransientError(ClusterError):
    """Trying again, later, may help."""

    code = "transient"
    status = 503


class Unavailable(TransientError):
    """Nobody there, or not ready yet."""

    code = "unavailable"


class TooManyRequests(TransientError):
    """More than this caller's share."""

    code = "too_many_requests"
    status = 429


class OutOfSpace(TransientError):
    """The disk is full; nothing half-written was kept."""

    code = "out_of_space"
    status = 507


def every_error(root: type[ClusterError] = ClusterError) -> Iterator[type[ClusterError]]:
    """Yield the tree, root first."""
    yield root
    for branch in root.__subclasses__():
        yield from every_error(branch)


_UNKNOWN_CODE_BY_CLASS = {4: CallerError, 5: TransientError}


def from_problem(status: int, body: Mapping[str, Any]) -> ClusterError:
    """Turn a problem body back into the error it was made from.

    A body without a code that we know (a proxy's page, say) becomes the general error of its status class.
    """
    facts = {k: v for k, v in body.items() if k not in {"type", "title", "status", "code", "detail"}}
    detail = str(body.get("detail") or body.get("title") or f"the server answered {status}")
    code = body.get("code")
    known = [kind for kind in every_error() if kind.code == code]
    if known:  # a base and its plainest child share a code: the child is what one catches
        return known[-1](detail, **facts)
    return _UNKNOWN_CODE_BY_CLASS.get(status // 100, ClusterError)(detail, **facts)
