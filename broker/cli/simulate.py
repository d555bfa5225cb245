"""`aibroker simulate`: becomes the simulated provider."""

from pathlib import Path
from typing import Annotated

import typer

from broker.cli.invocation import Invocation
from broker.cli.worker import become


def simulate(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Option(help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen on this port; 0 takes a free one.")] = 0,
    behaviour: Annotated[
        Path | None, typer.Option(metavar="FILE", help="How it behaves (latency, limits, errors), as YAML or JSON.")
    ] = None,
    calls: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the invoice of all calls in this file, over restarts.")
    ] = None,
) -> None:
    """Run a provider that answers like OpenAI and costs nothing: to try things, and to see how errors are dealt with.

    It prints its address. Its calls are at /sim/calls, sums at /sim/stats, its behaviour is changed by PUT /sim/behaviour.
    """
    invocation: Invocation = context.obj
    arguments = ["--host", host, "--port", str(port)]
    for name, path in (("--behaviour", behaviour), ("--calls", calls)):
        arguments += [name, str(path)] if path else []
    become("broker.local.simulator", arguments, invocation.environment)
