"""The HTTP side: inference calls, which may break on purpose, and the operator's paths below `/sim/`."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from broker.local.simulator.asks import read_ask
from broker.local.simulator.behaviour import Behaviour, BehaviourError, read_behaviour
from broker.local.simulator.calls_file import CallsFile
from broker.local.simulator.decisions import Decision, Desk, Request
from broker.local.simulator.delivery import Delivery
from broker.local.simulator.invoice import Invoice
from broker.local.simulator.prices import MODELS
from broker.local.simulator.refusals import Refused, error_body
from broker.local.simulator.usage import PATHS

_LARGEST_BODY = 64 * 1024 * 1024
_IDLE_S = 86_400.0


class _Sent(web.StreamResponse):
    """Tells aiohttp that the answer went over the line already, and whether the line is kept."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool:
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - aiohttp's
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


class Simulator:
    """The service: a handler for aiohttp's server, with its invoice and its desk."""

    def __init__(self, behaviour: Behaviour, calls_file: CallsFile | None = None) -> None:
        self._desk, self._file = Desk(behaviour), calls_file
        self._kept, self._closed = _Sent(keep=True), _Sent(keep=False)
        self._invoice = self._new_invoice()
        if calls_file:
            calls_file.restore_into(self._invoice)
        self._operator: dict[tuple[str, str], Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]] = {
            ("GET", "/v1/models"): self._models,
            ("GET", "/sim/calls"): self._calls,
            ("GET", "/sim/stats"): self._stats,
            ("GET", "/sim/behaviour"): self._behaviour,
            ("PUT", "/sim/behaviour"): self._change,
            ("POST", "/sim/reset"): self._reset,
        }

    def _new_invoice(self) -> Invoice:
        return Invoice(time.time_ns() // 1000, self._file.add if self._file else None)

    def stop(self) -> None:
        """Ends the open calls as cut and writes the file."""
        self._invoice.close_open("cut", time.time())
        self._invoice.detach()
        if self._file:
            self._file.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        if request.method == "POST" and request.path in PATHS:
            return await self._infer(request)
        operation = self._operator.get((request.method, request.path))
        if operation:
            return await operation(request)
        message = f"Invalid URL ({request.method} {request.path})"
        return _json(error_body(message, "invalid_request_error", None, "unknown_url"), 404)

    async def _infer(self, request: web.BaseRequest) -> web.StreamResponse:
        content = await request.read()
        opened = time.time()
        invoice, client_request_id = self._invoice, request.headers.get("x-client-request-id")
        row = invoice.open(request.path, client_request_id, opened)
        try:
            decision = self._decide(
                request, Request(invoice.id_of(row), _key(request), client_request_id, content), row
            )
            del content
            if decision.latency_s:
                await asyncio.sleep(decision.latency_s - (time.time() - opened))
            kept = await _send(request, decision.delivery)
        except (asyncio.CancelledError, ConnectionError):
            invoice.close(row, "client_gone", time.time())
            raise
        _settle(invoice, row, decision)
        return self._kept if kept and request.keep_alive else self._closed

    def _decide(self, http: web.BaseRequest, request: Request, row: int) -> Decision:
        invoice = self._invoice
        try:
            self._desk.admit(request.key)
            ask = read_ask(http.path, request.content)
            invoice.describe(row, ask.model, ask.prompt_tokens)
            decision = self._desk.decide(request, ask, time.time())
        except Refused as refused:
            return self._desk.refuse(request, refused)
        if decision.fault:
            invoice.mark(row, decision.fault)
        return decision

    async def _models(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self._desk.admit(_key(request))
        except Refused as refused:
            return _json(refused.body(), refused.status)
        names = sorted(MODELS.keys() | self._desk.behaviour.models.keys())
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "simulator"} for name in names]
        return _json(orjson.dumps({"object": "list", "data": data}))

    async def _calls(self, request: web.BaseRequest) -> web.StreamResponse:
        since = request.query.get("since", "0")
        if not since.isascii() or not since.isdigit():
            return _json(orjson.dumps({"error": "since: a row number, 0 or more, is needed"}), 400)
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        for piece in self._invoice.lines(int(since)):
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def _stats(self, request: web.BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - a handler's shape
        return _json(orjson.dumps(self._invoice.stats()))

    async def _behaviour(self, request: web.BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - a handler's shape
        return _json(self._desk.behaviour.model_dump_json().encode())

    async def _change(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self._desk.change(read_behaviour(await request.read()))
        except BehaviourError as error:
            return _json(orjson.dumps({"error": str(error)}), 400)
        return await self._behaviour(request)

    async def _reset(self, request: web.BaseRequest) -> web.StreamResponse:
        self._invoice.detach()
        if self._file:
            self._file.clear()
        self._invoice = self._new_invoice()
        self._desk.restart()
        return await self._stats(request)


async def listen(simulator: Simulator, host: str, port: int) -> asyncio.Server:
    """Starts to serve; raises `OSError` where the port cannot be had."""
    loop = asyncio.get_running_loop()
    server = web.Server(
        simulator.handle,
        request_factory=functools.partial(web.BaseRequest, loop=loop, client_max_size=_LARGEST_BODY),
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=_IDLE_S,
    )
    return await loop.create_server(server, host, port, backlog=4096)


def _key(request: web.BaseRequest) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def _settle(invoice: Invoice, row: int, decision: Decision) -> None:
    """Enters what went over the line: only an answer that went out is charged."""
    if decision.delivery.cut:
        invoice.close(row, "cut", time.time())
        return
    if decision.charge:
        counts, pico, usage_sent = decision.charge
        invoice.charge(row, counts, pico, usage_sent=usage_sent)
    invoice.close(row, "answered", time.time(), decision.status)


async def _send(request: web.BaseRequest, delivery: Delivery) -> bool:
    """Writes the pieces and ends as told; says whether the line is kept. Raises `ConnectionError` if it is lost."""
    transport, writer = request.transport, request.writer
    if transport is None:
        raise ConnectionResetError("the client has gone")
    if delivery.end == "never":
        await asyncio.get_running_loop().create_future()
    for number, piece in enumerate(delivery.pieces):
        if number and delivery.gap_s:
            await asyncio.sleep(delivery.gap_s)
        transport.write(piece)
        if len(piece) > 16_384 or number:
            await writer.drain()
    if delivery.end == "abort":
        transport.abort()
    return delivery.end == "keep"
