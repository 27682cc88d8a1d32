"""Every error that may reach a client, as one tree. Rendering is `web/errors.py`'s and `gateway/errors.py`'s.

IndigoError
├── InvalidRequest   400  the request itself is wrong
├── Unauthorized     401  no credential, or one that is not valid (any more)
├── Forbidden        403  a valid credential that may not do this
├── NotFound         404  no such thing, or not visible to this credential
├── Conflict         409  it clashes with what is there
├── TooLarge         413  a body over the cap
├── RateLimited      429  a limit or budget is used up
├── Internal         500  our fault
├── UpstreamFailed   502  the model endpoint answered nonsense, or broke off
├── Unavailable      503  nothing can take the request now; come back
└── UpstreamTimeout  504  the model endpoint did not answer in time
"""

from __future__ import annotations


class IndigoError(Exception):
    """Root of the tree. `type`, `code`, `message`, `param` are OpenAI's error fields; `retry_after` is seconds."""

    status = 500
    type = "internal_error"
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class InvalidRequest(IndigoError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class Unauthorized(IndigoError):
    status = 401
    type = "auth_error"
    code = "invalid_api_key"


class Forbidden(IndigoError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(IndigoError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class Conflict(IndigoError):
    status = 409
    type = "invalid_request_error"
    code = "conflict"


class TooLarge(IndigoError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class RateLimited(IndigoError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Internal(IndigoError):
    pass


class UpstreamFailed(IndigoError):
    status = 502
    type = "upstream_error"
    code = "upstream_failed"


class Unavailable(IndigoError):
    status = 503
    type = "service_unavailable_error"
    code = "unavailable"


class UpstreamTimeout(IndigoError):
    status = 504
    type = "upstream_error"
    code = "upstream_timeout"
