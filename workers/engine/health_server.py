"""Answers `GET /live` and `GET /ready` from a thread with an event loop of its own, so that it does so also where the worker's does not turn.

FastStream has the routes, uvicorn the HTTP. FastStream's own ping asks Kafka alone, and on the loop that may be what stands still.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import orjson
import uvicorn
from faststream.asgi import AsgiFastStream, AsgiResponse, HttpHandler, get

from broker import settings
from broker.errors import SettingsError
from workers.engine.health import Health, Report

STOP_S = 2.0
MOST_CONNECTIONS = 100


@contextmanager
def serving(options: settings.Health, health: Health) -> Iterator[str | None]:
    """Serve while inside, where a port is set; the value is the address.

    Raises:
        SettingsError: Nothing can listen there.
    """
    if options.port is None:
        yield None
        return
    listening = _bound(options.host, options.port)
    app = AsgiFastStream(asgi_routes=[("/live", _route(health.live)), ("/ready", _route(health.ready))], logger=None)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, args=([listening],), name="health", daemon=True)
    thread.start()
    try:
        yield _address(listening)
    finally:
        server.should_exit = True
        thread.join(STOP_S)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"health: nothing can listen on {host}, port {port} ({error.strerror}): choose another one, or 0 for any free one"
        ) from None


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _route(look: Callable[[], Report]) -> HttpHandler:
    @get
    async def answer(_: object) -> AsgiResponse:
        report = look()
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        return AsgiResponse(orjson.dumps(report.document), 200 if report.ok else 503, headers)

    return answer
