"""Who is calling a management route, and may they? Default deny: `make_app` refuses routes that do not say.

Not for inference: the gateway authenticates those itself, with the same `gateway.authenticate`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fastapi import Request

from indigo.gateway.authenticate import check_format, credential_of
from indigo.gateway.ports import Grant, Grants
from indigo.kernel import api_keys
from indigo.kernel.errors import Forbidden, InvalidRequest, Unauthorized

ANY_KEY = frozenset(api_keys.KINDS)

PERMISSIONS = {
    "models.read": ANY_KEY,
    "metrics.read": frozenset({"admin"}),
}
"""What may be asked of a caller, and the kinds of key that may do it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. There is no anonymous one: public routes have no caller at all."""

    grant: Grant

    def may_use_model(self, model: str) -> bool:
        return self.grant.models is None or model in self.grant.models


class Access:
    """A route's declaration of who may call it; `permission` None is everybody."""

    def __init__(self, permission: str | None) -> None:
        self.permission = permission


class _Public(Access):
    async def __call__(self) -> None:
        return None


class Permission(Access):
    """A dependency that answers the Caller, or raises what they are told instead."""

    def __init__(self, permission: str, grants: Grants) -> None:
        super().__init__(permission)
        self._kinds = PERMISSIONS[permission]
        self._grants = grants

    async def __call__(self, request: Request) -> Caller:
        caller = await authenticate(request, self._grants)
        if caller.grant.kind not in self._kinds:
            allowed = ", ".join(sorted(self._kinds))
            raise Forbidden(
                f"A key of kind '{caller.grant.kind}' may not do this; it takes one of kind {allowed}.",
                code="insufficient_permissions",
            )
        return caller


PUBLIC = _Public(None)


async def authenticate(request: Request, grants: Grants) -> Caller:
    """The caller by the request's bearer key; raises, and never guesses, where there is none."""
    request.state.authenticated = True  # set first: refusals must not be cached either
    try:
        token = credential_of(request.headers.raw)
    except Unauthorized as error:
        if error.code == "missing_api_key" and _strays(request):
            raise Unauthorized(
                "API keys are not read from the query or from cookies, which end up in logs. "
                "Send yours as 'Authorization: Bearer sk-…', and replace it if it was logged.",
                code="misplaced_api_key",
            ) from None
        raise
    check_format(token)
    if any(stray != token.decode("ascii") for stray in _strays(request)):
        raise InvalidRequest("Two different credentials were sent; send one.", code="ambiguous_credentials")
    digest = hashlib.sha256(token).digest()
    grant = grants.cached(digest)
    return Caller(grant if grant is not None else await grants.find(digest))


def _strays(request: Request) -> list[str]:
    """Keys of ours where none is read from."""
    values = [*request.query_params.values(), *request.cookies.values()]
    return [value for value in values if api_keys.well_formed(value)]
