"""Starts the simulator: `python -m broker.local.simulator --port 0 [--behaviour FILE] [--calls FILE]`."""

import argparse
import asyncio
import gc
import resource
import signal
import sys
from pathlib import Path

import orjson
import uvloop

from broker.local.simulator.behaviour import Behaviour, BehaviourError, read_behaviour
from broker.local.simulator.calls_file import CallsFile, CallsFileError
from broker.local.simulator.server import Simulator, listen

WRONG_USE = 2
NOT_STARTED = 3


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="broker.local.simulator", description="An HTTP server that answers like OpenAI."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one (default)")
    parser.add_argument("--behaviour", type=Path, metavar="FILE", help="how to behave, YAML or JSON")
    parser.add_argument("--calls", type=Path, metavar="FILE", help="keep the closed calls here, over restarts")
    return parser.parse_args()


def _behaviour(path: Path | None) -> Behaviour:
    if path is None:
        return Behaviour()
    try:
        return read_behaviour(path.read_bytes())
    except OSError as error:
        raise BehaviourError(f"cannot be read: {error.strerror}") from error


async def _serve(arguments: argparse.Namespace, behaviour: Behaviour) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(error: CallsFileError | None = None) -> None:
        if not ended.done():
            ended.set_exception(error) if error else ended.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    simulator = Simulator(behaviour, CallsFile(arguments.calls, end) if arguments.calls else None)
    server = await listen(simulator, arguments.host, arguments.port)
    host, port = server.sockets[0].getsockname()[:2]
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    ready = {"event": "simulator.ready", "url": f"http://{host}:{port}"}
    sys.stdout.write(orjson.dumps(ready).decode() + "\n")
    sys.stdout.flush()
    try:
        await ended
    finally:
        server.close()
        simulator.stop()


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Serves until SIGTERM or SIGINT; the exit code is 0, or 2 for a wrong behaviour, 3 if it could not start or go on."""
    arguments = _arguments()
    try:
        behaviour = _behaviour(arguments.behaviour)
    except BehaviourError as error:
        sys.stderr.write(f"{arguments.behaviour}: {error}\n")
        return WRONG_USE
    _allow_many_connections()
    try:
        uvloop.run(_serve(arguments, behaviour))
    except CallsFileError as error:
        sys.stderr.write(f"{error}\n")
        return NOT_STARTED
    except OSError as error:
        where = f"{arguments.host}:{arguments.port}"
        sys.stderr.write(f"the simulator cannot listen on {where}: {error.strerror}; choose another --port\n")
        return NOT_STARTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
