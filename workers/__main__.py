"""`python -m workers`: one worker process.

Exit codes: 0 stopped by a signal, 2 wrong settings, 3 a service is missing, 70 another worker declared this one dead, or the watchdog ended it.
"""

import os
import sys

import uvloop

from broker.errors import AibrokerError, ServiceMissing, SettingsError
from broker.events import Events, to_stream
from broker.settings import load
from workers.app import serve
from workers.engine.leases import FencedError
from workers.engine.watchdog import EXIT

WRONG_USE = 2
MISSING = 3


def main() -> int:
    """Run a worker; return its exit code."""
    try:
        settings = load(os.environ)
        to_stream(settings.telemetry.log_level)
        uvloop.run(serve(settings))
    except BaseException as error:
        cause = _first(error)
        if isinstance(cause, FencedError):
            Events("worker").warning("worker.fenced", reason=str(cause))
            return EXIT
        if not isinstance(cause, AibrokerError):
            raise
        sys.stderr.write(f"aibroker worker: {cause}\n")
        return WRONG_USE if isinstance(cause, SettingsError) else MISSING if isinstance(cause, ServiceMissing) else 1
    return 0


def _first(error: BaseException) -> BaseException:
    """The error that ended a group of tasks."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
