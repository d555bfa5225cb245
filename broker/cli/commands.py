"""Every command by its name: what the list says of it, and where it is; only what was asked for is imported.

The clients of Kafka and MongoDB alone take half a second, which a help or a mistyped name need not wait for.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

import typer

TRYING, WORKING, RUNNING = "To try it", "Jobs and what they cost", "To run it"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command as the list shows it: `short` is the first sentence of its own help; its function is in `broker.cli.<module>`."""

    panel: str
    module: str
    short: str
    is_group: bool = False


COMMANDS: Mapping[str, Entry] = MappingProxyType(
    {
        "demo": Entry(
            TRYING,
            "demo",
            "Send 1,000 mixed jobs through the whole product on this machine, and show what became of them and what they cost.",
        ),
        "up": Entry(
            TRYING,
            "up",
            "Run everything on this machine: Kafka, MongoDB, workers, and a simulated provider where no real one is set.",
        ),
        "submit": Entry(
            WORKING,
            "submit",
            "Send the jobs of a file of JSON lines: our job lines, and lines of OpenAI's batch format as they are.",
        ),
        "status": Entry(
            WORKING,
            "status",
            "Say where a job or a batch is: its state, why it waits, its attempts, which worker on which host has it, when it will probably start.",
        ),
        "results": Entry(WORKING, "results", "Write the results of finished jobs as lines of JSON."),
        "usage": Entry(WORKING, "usage", "Sum what was used and what it cost.", is_group=True),
        "limits": Entry(
            WORKING,
            "limits",
            "Show what is spent, held and left of each limit in its window, and change limits without a restart.",
            is_group=True,
        ),
        "cancel": Entry(
            WORKING,
            "cancel",
            "Cancel a job, or a batch: what waits ends without a call, a call that runs is cut, and its cost is estimated.",
        ),
        "rerun": Entry(
            WORKING,
            "rerun",
            "Run jobs again that have ended without success: as the next generation, through all checks, with results where the last ones went.",
        ),
        "pause": Entry(
            RUNNING,
            "pause",
            "Let no job of a batch, of a tenant, or at all begin, until it is resumed. Calls that run go on.",
        ),
        "resume": Entry(
            RUNNING,
            "pause",
            "Let a batch, a tenant or everything that was paused go on at once. Each is resumed as it was paused.",
        ),
        "dead": Entry(
            RUNNING,
            "dead",
            "What was no job, or asked for what cannot be done: byte for byte in the topic `jobs.dead`, with the reason.",
            is_group=True,
        ),
        "doctor": Entry(
            RUNNING,
            "doctor",
            "Look at everything that is needed: what can be reached, in which version, what is missing, what waits and why.",
        ),
        "topics": Entry(
            RUNNING,
            "topics",
            "Make the topics, collections and indexes that are missing, change none that is there, and list the topics.",
        ),
        "worker": Entry(
            RUNNING,
            "worker",
            "Run one worker in the foreground: it takes jobs from Kafka and calls the providers of the settings.",
        ),
        "workers": Entry(
            RUNNING,
            "workers",
            "List the workers: host, version, what is left of each one's lease, its state, and the jobs that it runs.",
        ),
        "drain": Entry(
            RUNNING,
            "workers",
            "Ask workers to take nothing more, to finish the calls that run, to hand back the rest, and to end with 0.",
        ),
        "simulate": Entry(
            RUNNING,
            "simulate",
            "Run a provider that answers like OpenAI and costs nothing: to try things, and to see how errors are dealt with.",
        ),
    }
)


def add_all(app: typer.Typer, arguments: Collection[str]) -> None:
    """Add every command in the order of the list; those that the arguments name as they are, the others for the list alone."""
    for name, entry in COMMANDS.items():
        if name not in arguments:
            app.command(name, short_help=entry.short, rich_help_panel=entry.panel)(_unnamed)
            continue
        found = getattr(import_module(f"broker.cli.{entry.module}"), name)
        if entry.is_group:
            app.add_typer(found(), name=name, rich_help_panel=entry.panel)
        else:
            app.command(name, short_help=entry.short, rich_help_panel=entry.panel)(found)


def _unnamed() -> None:
    raise AssertionError("a command runs only where the arguments name it")
