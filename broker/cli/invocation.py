"""One run of the command: its environment, its settings, and the local stack whose addresses it uses."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from broker import settings as settings_of
from broker.cli import variables
from broker.errors import ServiceMissing
from broker.settings import Settings

DEFAULT_DATA = Path(".aibroker")
"""Where `up` keeps its data unless told otherwise."""

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Use the stack that `aibroker up --data DIR` runs; without it, the one in ./.aibroker if it runs and no other Kafka or MongoDB is set.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON and nothing else to standard output.")]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="Whose jobs; `default` if not given.")
]


@dataclass(slots=True)
class Invocation:
    """What every command gets: handed through typer's context."""

    environment: Mapping[str, str]
    settings_file: Path | None = None
    show_traceback: bool = False

    def settings(self, data: Path | None = None) -> Settings:
        """The settings, with the addresses of the local stack in the folder `data` where it is given or found.

        Raises:
            SettingsError: They are wrong.
            ServiceMissing: No stack runs on `data`.
        """
        return settings_of.load({**self.environment, **self.led_to_stack(data)}, self.settings_file)

    def own_settings(self) -> Settings:
        """The settings as they are written, for what reaches no service.

        Raises:
            SettingsError: They are wrong.
        """
        return settings_of.load(self.environment, self.settings_file)

    def led_to_stack(self, data: Path | None) -> dict[str, str]:
        """The variables that lead to the local stack in `data`, or to the one that is found where nothing else is set."""
        own = self.own_settings()
        if data is None:
            found = None if {"kafka", "mongo"} & own.model_fields_set else running_stack(DEFAULT_DATA)
        else:
            found = running_stack(data)
            if found is None:
                raise ServiceMissing(f"no stack runs on {data}; start it with `aibroker up --data {data}`")
        if found is None:
            return {}
        led = variables.of_stack(found["kafka"], found["mongo"], found["database"])
        return {**led, **variables.of_simulator(found.get("simulator"), own)}


def running_stack(data: Path) -> dict[str, Any] | None:
    """What `stack.json` in the folder says, None where no stack runs: it stays behind when its owner was killed."""
    try:
        found = json.loads((data / "stack.json").read_bytes())
        pids = [pid for pid in (*found["pids"]["workers"], *found["pids"].values()) if isinstance(pid, int)]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if not pids or any(map(_lives, pids)) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
