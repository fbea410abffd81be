"""The routes. What they do stands in `engine.py`, what they allow in `limits.py`."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute

import pointcentroid
from pointcentroid.config import nearest_name
from pointcentroid.errors import MissingExtraError, PointCentroidError
from pointcentroid.predict.up import Up
from pointcentroid.results import Failure, to_row
from pointcentroid.serve import pages
from pointcentroid.serve.engine import Engine, Upload, require_explaining
from pointcentroid.serve.guard import Guard
from pointcentroid.serve.limits import RefusalError, ServeSettings
from pointcentroid.serve.uploads import accepted
from pointcentroid.weights import read_card, shipped_weights

_MOST_VOTES = 10
_AT_ONCE = 16  # files of one request; those of others come in between

UpQuery = Annotated[Up, Query(description="The axis that points up.")]
_FILES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}


def create_app(settings: ServeSettings | None = None, loopback: bool = True) -> FastAPI:
    """Build the application, with the net loaded.

    Args:
        settings: what to serve, and the limits.
        loopback: whether it is reached over the loopback only, see `pointcentroid.serve.guard.Guard`.

    Raises:
        WeightsError: there are no such weights, or they do not classify.
        ConfigError: there is no such device.
    """
    engine = Engine(settings or ServeSettings())
    settings, classes = engine.settings, engine.predictor.classes

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await engine.start()
            yield
        finally:
            await engine.stop()

    app = FastAPI(title="pointcentroid", version=pointcentroid.__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, loopback=loopback)
    _say_no(app)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        text, policy = pages.page()
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    @app.post("/classify", openapi_extra=_FILES, dependencies=[Depends(_known)], response_model=list[dict[str, Any]])
    async def classify(
        request: Request,
        up: UpQuery = "auto",
        top: Annotated[int, Query(ge=1, le=len(classes), description="Classes to list for each shape.")] = 5,
        votes: Annotated[int, Query(ge=1, le=_MOST_VOTES, description="Independent samplings to average.")] = 1,
    ) -> Response:
        """Say what shapes are: a row for each file, as `pointcentroid classify --format json` prints it."""

        turns = asyncio.Semaphore(_AT_ONCE)

        async def answer(upload: Upload) -> dict[str, Any]:
            async with turns:
                result = await engine.classify(upload, up, votes)
            return to_row(result if isinstance(result, Failure) else dataclasses.replace(result, top=result.top[:top]))

        async with accepted(request, engine, settings.files) as uploads:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(answer(upload)) for upload in uploads]
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
            return JSONResponse([task.result() for task in tasks])  # as they are: checking rows of ours would take longer

    @app.post("/explain", openapi_extra=_FILES, dependencies=[Depends(_known)], response_class=HTMLResponse)
    async def explain(request: Request, up: UpQuery = "auto") -> Response:
        """Show the centroids that one shape is seen through: the page of `pointcentroid view --html`."""
        async with accepted(request, engine, 1) as uploads:
            result = await engine.explain(uploads[0], up)
        if isinstance(result, Failure):
            return _answer(request, 422, {"file": result.file, "error": result.error})
        return HTMLResponse(result, headers={"Content-Security-Policy": pages.EXPLANATION_POLICY})

    @app.get("/models")
    async def models() -> list[dict[str, Any]]:
        """The weights that come with the package, and those that answer, where they are others: `serving` says which."""
        known, own = sorted(shipped_weights().items()), engine.predictor.path
        known += [] if own in (path for _, path in known) else [(engine.predictor.card.name, own)]
        return [
            {
                "name": name,
                "kind": card.model.kind,
                "classes": list(card.classes),
                "points": card.preprocess.points,
                "serving": path == engine.predictor.path,
                "trained_on_validation": bool(card.knows_validation),
                **card.figures,
            }
            for name, path in known
            for card in [read_card(path)]
        ]

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether it is well, and what it is doing."""
        return {
            "status": "ok",
            "version": pointcentroid.__version__,
            "weights": engine.predictor.card.name,
            "requests": engine.requests,
            "held_bytes": engine.held,
            "readers": settings.readers,
            "explains": _explains(),
            "files": settings.files,
            "upload_bytes": settings.upload_bytes,
        }

    @app.get("/examples")
    async def examples() -> list[str]:
        """Names of files to try."""
        return list(pages.examples())

    @app.get("/examples/{name}", response_class=Response)
    async def example(name: str) -> Response:
        """A file to try."""
        if name not in pages.examples():
            raise HTTPException(404)
        return Response(pages.examples()[name], media_type="application/octet-stream")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        text, policy = pages.api_page(app.openapi(), str(request.base_url))
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    for route in list(app.routes):  # what can be asked for can be asked about
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            app.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)
    return app


async def _known(request: Request) -> None:
    """Refuse a parameter that the route does not have: it was meant to be another one."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise RefusalError(422, f"no parameter {name!r}{nearest_name(name, known)}; there are {', '.join(known)}")


def _explains() -> bool:
    try:
        require_explaining()
    except MissingExtraError:
        return False
    return True


def _answer(request: Request, status: int, content: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """An error: JSON, or a page where a browser asked for one."""
    if "text/html" in request.headers.get("accept", ""):
        own = {"Content-Security-Policy": pages.EXPLANATION_POLICY}  # it may stand in the frame of the page
        return HTMLResponse(pages.failure_page(content["error"]), status, {**own, **(headers or {})})
    return JSONResponse(content, status, headers)


def _say_no(app: FastAPI) -> None:
    """Every error is one line, and says nothing of the inside."""

    @app.exception_handler(RefusalError)
    async def refused(request: Request, error: RefusalError) -> Response:
        retry = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return _answer(request, error.status, {"error": error.message}, {**retry, "Connection": "close"})

    @app.exception_handler(PointCentroidError)
    async def unable(request: Request, error: PointCentroidError) -> Response:
        return _answer(request, 501, {"error": str(error)})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _answer(request, 422, {"error": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"})

    @app.exception_handler(404)
    async def absent(request: Request, _: Exception) -> Response:
        return _answer(request, 404, {"error": "there is nothing here; GET /docs lists what there is"})

    @app.exception_handler(405)
    async def unsuited(request: Request, error: HTTPException) -> Response:
        return _answer(request, 405, {"error": "not with this method; GET /docs lists what there is"}, error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> Response:
        return _answer(request, 500, {"error": "an error of the server, which its log shows; please report it"})
