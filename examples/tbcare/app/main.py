"""Patient records over HTTP: create, read, update, delete, in PostgreSQL.

GET /patients   POST /patients   GET, PUT, DELETE /patients/{id}   GET /health   GET /whoami   GET /metrics
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

REQUESTS = Counter("clinic_requests_total", "Requests answered", ["method", "code"])
SECONDS = Histogram("clinic_request_seconds", "Time to answer", ["method"])
PATIENTS_WRITTEN = Counter("clinic_patients_written_total", "Records created, changed or deleted")

TABLE = """
CREATE TABLE IF NOT EXISTS patients (
    id bigserial PRIMARY KEY,
    name text NOT NULL,
    born date NOT NULL,
    notes text NOT NULL DEFAULT '',
    changed timestamptz NOT NULL DEFAULT now()
)"""
COLUMNS = "id, name, born::text, notes, changed::text"


def conninfo() -> str:
    """Where the database is, from the environment; the password comes from a secret's file."""
    return make_conninfo(
        host=os.environ["DATABASE_HOST"],
        dbname=os.environ["DATABASE_NAME"],
        user=os.environ["DATABASE_USER"],
        password=Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().strip(),
        connect_timeout=2,
    )


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    rows = {"row_factory": dict_row}
    pool = AsyncConnectionPool(conninfo(), min_size=1, max_size=8, timeout=3, open=False, kwargs=rows)
    app.state.pool = pool
    await pool.open()
    maker = asyncio.get_running_loop().create_task(make_table(pool))
    try:
        yield
    finally:
        maker.cancel()
        await pool.close(timeout=2)


async def make_table(pool: AsyncConnectionPool) -> None:
    """Once, as soon as the database is there; three replicas may try at the same time."""
    while True:
        try:
            async with pool.connection() as db:
                await db.execute("SELECT pg_advisory_xact_lock(1)")
                await db.execute(TABLE)
        except (psycopg.Error, PoolTimeout):
            await asyncio.sleep(0.5)
        else:
            return


def field(body: object, name: str) -> str:
    """A text field of a record, or 422 naming it."""
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise HTTPException(422, f"{name}: a text is needed")
    return value


async def record(request: Request) -> tuple[str, str, str]:
    try:
        body = await request.json()
    except ValueError:
        raise HTTPException(400, "the body is not JSON") from None
    notes = body.get("notes", "") if isinstance(body, dict) else ""
    if not isinstance(notes, str):
        raise HTTPException(422, "notes: a text is needed")
    return field(body, "name"), field(body, "born"), notes


async def patients(request: Request) -> Response:
    async with request.app.state.pool.connection() as db:
        if request.method == "GET":
            rows = await db.execute(f"SELECT {COLUMNS} FROM patients ORDER BY id DESC LIMIT 20")  # noqa: S608 - a constant
            return JSONResponse(await rows.fetchall())
        row = await db.execute(
            f"INSERT INTO patients (name, born, notes) VALUES (%s, %s, %s) RETURNING {COLUMNS}",  # noqa: S608 - a constant
            await record(request),
        )
        PATIENTS_WRITTEN.inc()
        return JSONResponse(await row.fetchone(), 201)


async def patient(request: Request) -> Response:
    key = request.path_params["id"]
    async with request.app.state.pool.connection() as db:
        match request.method:
            case "PUT":
                row = await db.execute(
                    f"UPDATE patients SET name=%s, born=%s, notes=%s, changed=now() WHERE id=%s RETURNING {COLUMNS}",  # noqa: S608 - a constant
                    (*await record(request), key),
                )
            case "DELETE":
                row = await db.execute(f"DELETE FROM patients WHERE id=%s RETURNING {COLUMNS}", (key,))  # noqa: S608 - a constant
            case _:
                row = await db.execute(f"SELECT {COLUMNS} FROM patients WHERE id=%s", (key,))  # noqa: S608 - a constant
        found = await row.fetchone()
    if found is None:
        raise HTTPException(404, f"no patient {key}")
    if request.method != "GET":
        PATIENTS_WRITTEN.inc()
    return JSONResponse(found)


async def health(_: Request) -> Response:
    """The API is up. The database's trouble is no reason to kill the API's containers."""
    return JSONResponse({"status": "ok"})


async def whoami(request: Request) -> Response:
    return JSONResponse(
        {
            "hostname": socket.gethostname(),
            "replica": os.environ.get("REPLICA", ""),
            "client": request.client.host if request.client else "",
            "forwarded_for": request.headers.get("x-forwarded-for", ""),
        }
    )


async def metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def failed(_: Request, error: Exception) -> Response:
    """HTTP errors as JSON; the database being away is 503, and passes."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, psycopg.errors.DataError):
        return JSONResponse({"error": str(error).splitlines()[0]}, 422)
    return JSONResponse({"error": "the database does not answer"}, 503)


class Counted:
    """ASGI middleware: counts and times every request."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]  # ASGI's own shapes
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        code = 500

        async def watched(message) -> None:  # type: ignore[no-untyped-def]
            nonlocal code
            code = message.get("status", code)
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            REQUESTS.labels(scope["method"], str(code)).inc()
            SECONDS.labels(scope["method"]).observe(time.perf_counter() - begun)


app = Starlette(
    routes=[
        Route("/patients", patients, methods=["GET", "POST"]),
        Route("/patients/{id:int}", patient, methods=["GET", "PUT", "DELETE"]),
        Route("/health", health),
        Route("/whoami", whoami),
        Route("/metrics", metrics),
    ],
    exception_handlers={
        HTTPException: failed,
        psycopg.errors.DataError: failed,
        psycopg.Error: failed,
        PoolTimeout: failed,
    },
    lifespan=lifespan,
)
app.add_middleware(Counted)
