"""May this grant use this model for this operation? Pure; returns what it decided."""

from __future__ import annotations

from indigo.gateway.ports import Grant, ModelEntry, Routes
from indigo.kernel.errors import Forbidden, InvalidRequest, NotFound


def authorize(grant: Grant, model: str, operation: str, routes: Routes) -> ModelEntry:
    """The model's entry.

    Raises Forbidden where the key may not, NotFound where there is no such model, InvalidRequest where the model
    cannot do that. A key that may use only some models learns nothing about the others.
    """
    if grant.kind == "admin":
        raise Forbidden("An admin key manages the platform; use a project key to ask models.", code="wrong_key_kind")
    if grant.operations is not None and operation not in grant.operations:
        raise Forbidden(f"This API key may not use {operation}.", code="operation_not_allowed")
    entry = routes.entry(model)
    if grant.models is not None and (entry.id if entry else model) not in grant.models:
        raise Forbidden(f"This API key may not use the model {shown(model)}.", code="model_not_allowed", param="model")
    if entry is None:
        raise NotFound(
            f"The model {shown(model)} does not exist. GET /v1/models lists those that do.",
            code="model_not_found",
            param="model",
        )
    if operation not in entry.operations:
        raise InvalidRequest(
            f"The model {shown(model)} cannot do {operation}; it can do {', '.join(sorted(entry.operations))}.",
            code="operation_not_supported",
            param="model",
        )
    return entry


def shown(model: str) -> str:
    """A client's own text in a message: quoted, cut, control characters escaped."""
    return repr(model[:128])
