"""Does the process live, may it have traffic, which version is it? Public: no answer helps a stranger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field

from indigo.kernel.errors import IndigoError
from indigo.web.caller import PUBLIC

log = logging.getLogger("indigo.web.health")

CHECK_SECONDS = 2.0

Check = tuple[str, Callable[[], Awaitable[str | None]]]
"""A name, and what answers None when all is well, or one sentence for everybody saying what is missing."""


class CheckResult(BaseModel):
    name: str = Field(examples=["database"])
    ok: bool
    detail: str | None = Field(None, description="What is missing, where it is not well.")


class Readiness(BaseModel):
    ready: bool
    checks: list[CheckResult]


class Status(BaseModel):
    status: str = Field(examples=["ok"])


class Version(BaseModel):
    version: str = Field(examples=["0.1.0"])
    env_reloaded_at: str = Field(description="When the environment was last read.", examples=["2026-11-20T09:00:00Z"])


def router(version: str, started_at: float, checks: Sequence[Check], draining: Callable[[], bool]) -> APIRouter:
    routes = APIRouter(tags=["Health"], dependencies=[Depends(PUBLIC)])
    read_at = datetime.fromtimestamp(started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @routes.get("/healthz", summary="Whether the process lives")
    async def healthz() -> Status:
        return Status(status="ok")

    @routes.get("/healthcheck", summary="As /healthz", response_class=PlainTextResponse)
    async def healthcheck() -> str:
        return "ok"

    @routes.get(
        "/readyz",
        summary="Whether to send traffic here",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Not ready; the checks say why"}},
    )
    async def readyz() -> Response:
        if draining():
            stopping = CheckResult(name="accepting", ok=False, detail="The server is shutting down.")
            return _answer(Readiness(ready=False, checks=[stopping]))
        results = await asyncio.gather(*(_run(name, check) for name, check in checks))
        return _answer(Readiness(ready=all(result.ok for result in results), checks=results))

    @routes.get("/v1/version", summary="The version that runs")
    async def running_version() -> Version:
        return Version(version=version, env_reloaded_at=read_at)

    return routes


def _answer(readiness: Readiness) -> Response:
    return JSONResponse(readiness.model_dump(exclude_none=True), 200 if readiness.ready else 503)


async def _run(name: str, check: Callable[[], Awaitable[str | None]]) -> CheckResult:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            missing = await check()
    except TimeoutError:
        missing = f"No answer within {CHECK_SECONDS:g} seconds."
    except IndigoError as error:
        missing = error.message
    except Exception:  # a probe must be answered whatever a check dies of; the cause is for the log only
        log.exception("the readiness check %s failed", name)
        missing = "The check failed; the log says why."
    return CheckResult(name=name, ok=missing is None, detail=missing)
