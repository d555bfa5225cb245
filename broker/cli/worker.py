"""`aibroker worker`: becomes one worker process."""

import os
import sys
from collections.abc import Mapping

import typer

from broker.cli.invocation import DataOption, Invocation
from broker.cli.variables import of_file


def worker(context: typer.Context, *, data: DataOption = None) -> None:
    """Run one worker in the foreground: it takes jobs from Kafka and calls the providers of the settings.

    Start as many as you like, on as many machines; they share the work. Ctrl-C lets running calls end first.
    """
    invocation: Invocation = context.obj
    invocation.settings(data)
    environment = {**invocation.environment, **of_file(invocation.settings_file), **invocation.led_to_stack(data)}
    become("workers", [], environment)


def become(module: str, arguments: list[str], environment: Mapping[str, str]) -> None:
    """Replace this process by `python -m <module>`, so that signals and the exit code are its own."""
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], dict(environment))  # noqa: S606 no shell, our own module
