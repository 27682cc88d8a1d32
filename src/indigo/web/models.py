"""`GET /v1/models` and `/v1/models/{id}`: what the caller's key may use. `features/models` manages them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from indigo.gateway.ports import Grants, ModelEntry, Routes
from indigo.kernel import paging
from indigo.kernel.errors import NotFound
from indigo.web.caller import Caller, Permission

MOST = 1000


class Model(BaseModel):
    id: str = Field(examples=["indigo-demo"])
    object: str = Field("model", examples=["model"])
    created: int = Field(description="When it was first registered, in Unix seconds.", examples=[1795168800])
    owned_by: str = Field(description="The provider that answers for it.", examples=["local"])


class ModelList(BaseModel):
    object: str = Field("list", examples=["list"])
    data: list[Model]
    first_id: str | None
    last_id: str | None
    has_more: bool
    next_after: str | None = Field(description="Send it as `after` for the next page; null on the last one.")


def router(grants: Grants, registry: Routes, created: Callable[[str], int]) -> APIRouter:
    routes = APIRouter(tags=["Models"], prefix="/v1/models")
    may_read = Permission("models.read", grants)

    def render(entry: ModelEntry) -> Model:
        owner = entry.targets[0].endpoint.provider if entry.targets else "indigo"
        return Model(id=entry.id, object="model", created=created(entry.id), owned_by=owner)

    @routes.get("", summary="List the models your key may use", response_model=ModelList)
    async def list_models(
        request: Request,
        caller: Caller = Depends(may_read),
        limit: Annotated[str | None, Query(description=f"1 to {MOST}; all models if left out.")] = None,
        after: Annotated[str | None, Query(description="next_after of the page before.")] = None,
        last: Annotated[str | None, Query(description="Same as after.")] = None,
        cursor: Annotated[str | None, Query(description="Same as after.")] = None,
        order: Annotated[str | None, Query(description="asc (default) or desc, by id.")] = None,
    ) -> dict[str, Any]:
        wanted = paging.parse(request.query_params, default=None, most=MOST)
        visible = [entry for entry in registry.entries() if caller.may_use_model(entry.id)]
        page = paging.cut(visible, wanted, lambda entry: entry.id)
        return paging.body(page, lambda entry: entry.id, render)

    @routes.get("/{model:path}", summary="Get one model; its id may contain slashes", response_model=Model)
    async def get_model(model: str, caller: Caller = Depends(may_read)) -> Model:
        entry = registry.entry(model)
        if entry is None or not (caller.may_use_model(entry.id) or caller.may_use_model(model)):
            raise NotFound(
                f"The model '{model}' does not exist, or your key may not use it.",
                code="model_not_found",
                param="model",
            )
        return render(entry)

    return routes
