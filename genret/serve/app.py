"""The application: its parts, its middleware, its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec

from fastapi import Depends, FastAPI

import genret
from genret.run import Run
from genret.serve.engine import Engine
from genret.serve.errors import handle_errors
from genret.serve.listing import Listing, Undo
from genret.serve.metrics import Metrics
from genret.serve.network.access import Access, AccessMiddleware
from genret.serve.network.limits import LimitsMiddleware
from genret.serve.options import ServeOptions
from genret.serve.routes import explain, files, images, index, knn, search, server


def create_app(run: Run, options: ServeOptions = ServeOptions()) -> FastAPI:
    """The page and the API over a run. The model is loaded in the background when the application starts."""
    metrics = Metrics()
    access = Access(options)
    engine = Engine(run, options, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.gather(*app.state.tasks, return_exceptions=True)
        await asyncio.to_thread(engine.stop)

    app = FastAPI(
        title="genret",
        version=genret.__version__,
        summary="Search pictures by words.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts of other sites
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.run, app.state.options = run, options
    app.state.engine, app.state.access, app.state.metrics = engine, access, metrics
    app.state.listing, app.state.undo = Listing(run), Undo()
    app.state.indexing, app.state.tasks = asyncio.Lock(), set[asyncio.Task[None]]()
    handle_errors(app)
    app.include_router(server.router)
    app.state.routers = [server.router]
    for module in (search, explain, images, files, index, knn):
        app.include_router(module.router, dependencies=[Depends(server.when_ready)])
        app.state.routers.append(module.router)
    if find_spec("genret.serve.page") is not None:
        app.include_router(import_module("genret.serve.page.routes").router)
    app.add_middleware(LimitsMiddleware, options=options, metrics=metrics)
    app.add_middleware(AccessMiddleware, access=access)  # the last one added is the first one asked
    return app
