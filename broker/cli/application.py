"""Builds the command, and turns what went wrong into one sentence and an exit code: the command's composition root."""

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from broker.cli import commands
from broker.cli.invocation import Invocation
from broker.errors import AibrokerError, ControlRefused, JobRefused, ServiceMissing, SettingsError, UsageError
from broker.local.errors import LocalError

DONE = 0
NOT_ALL_SUCCEEDED = 1
WRONG_USE = 2
SERVICE_MISSING = 3
OWN_FAULT = 70
INTERRUPTED = 130

_HELP = """\
A broker for AI requests: jobs go in through Kafka, answers and an exact ledger of their cost come out.

Begin with `aibroker demo`, or with `aibroker up` in one terminal and `aibroker submit FILE.jsonl --follow` in another.
Exit codes: 0 done, 1 some jobs did not succeed or an invoice differs, 2 wrong use, 3 a service is missing, 70 a fault of aibroker itself.
"""


def application(arguments: Sequence[str]) -> typer.Typer:
    """Build the command with the subcommands that the arguments can mean."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    commands.add_all(app, arguments)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"aibroker {version('aibroker')}\n")
        raise typer.Exit


def _options(
    context: typer.Context,
    *,
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the settings from this file instead of aibroker.yaml.")
    ] = None,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the whole traceback of an error, for a report.")
    ] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    del show_version
    invocation: Invocation = context.obj
    invocation.settings_file = settings
    invocation.show_traceback = show_traceback


def main() -> None:
    """Run the command with the arguments and the environment of this process; ends it with the exit code."""
    # What goes wrong is told as one sentence; the libraries' own remarks on the way there are only noise before it.
    logging.disable(logging.CRITICAL)
    sys.exit(run(sys.argv[1:], os.environ))


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command; every error that a user can meet becomes one sentence here, and nowhere else."""
    invocation = Invocation(environment)
    try:
        typer.main.get_command(application(arguments)).main(list(arguments), prog_name="aibroker", obj=invocation)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return DONE
    except Exception as error:  # noqa: BLE001 the edge: what comes through here would be a traceback on a newcomer's screen
        if invocation.show_traceback:
            traceback.print_exc()
        else:
            sys.stderr.write(f"{sentence(error)}\n")
        return exit_code(error)
    return DONE


def sentence(error: Exception) -> str:
    """What a user reads of an error: what is wrong and what to do about it."""
    if isinstance(error, AibrokerError):
        return f"aibroker: {error}"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"aibroker: {place}{error.strerror}; make room or change the permissions, and run it again"
    kind = type(error).__name__
    return f"aibroker: a fault of its own ({kind}: {error}); run it again as `aibroker --traceback ...` and report what it shows"


def exit_code(error: Exception) -> int:
    """The exit code that an error ends the command with."""
    if isinstance(error, SettingsError | UsageError | JobRefused | ControlRefused):
        return WRONG_USE
    if isinstance(error, ServiceMissing | LocalError | OSError):
        return SERVICE_MISSING
    return NOT_ALL_SUCCEEDED if isinstance(error, AibrokerError) else OWN_FAULT


def _forget_output() -> None:
    """Point the standard output at nothing: whoever read it has gone, and flushing it at the end would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
