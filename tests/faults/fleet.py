"""The workers of one run: starts them, kills them, and says what the killed one had in its hands."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pymongo

from broker.local.processes import Child
from broker.local.stack import Stack
from tests.faults.history import Kill
from tests.faults.reading import Services, read_calls

SESSION_S = 6
LEASE_S = 6
SETTINGS = Path(__file__).with_name("settings.yaml")
_KILLED = -9


@dataclass(frozen=True)
class Member:
    """A worker process and its incarnation."""

    child: Child
    incarnation: str
    fail_at: str = ""


@dataclass
class Fleet:
    """The workers of one run, by their prefix; `kills` is the kill log."""

    stack: Stack
    services: Services
    members: list[Member] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    async def start(self, fail_at: Sequence[str]) -> list[Member]:
        """Start a worker for each failpoint ("" for none), side by side."""
        started = await asyncio.gather(*(self._start(name) for name in fail_at))
        self.members += started
        return started

    async def _start(self, fail_at: str) -> Member:
        [child] = await self.stack.start_workers(1, {**environment(self.services), "AIBROKER_FAIL_AT": fail_at})
        return Member(child, _incarnation(child), fail_at)

    async def stop(self) -> None:
        """Ask all to stop, and wait for it."""
        await asyncio.gather(*(self.stack.stop_worker(member.child) for member in self.members))
        await self.fallen()
        self.members.clear()

    async def kill(self, member: Member) -> Kill:
        """Kill a worker; the kill log says what was claimed in its name."""
        at = time.time()
        await self.stack.kill_worker(member.child)
        return await self._log(member, at, "random")

    async def fallen(self) -> list[Kill]:
        """Log the workers that have killed themselves since the last look."""
        gone = [member for member in self.members if not member.child.running and member.child.exit_code]
        for member in gone:
            if member.child.exit_code != _KILLED or not member.fail_at:
                raise RuntimeError(f"a worker ended with {member.child.exit_code}; its log is {member.child.log}")
            await self.stack.kill_worker(member.child)
        return [await self._log(member, _hit_at(member.child), member.fail_at) for member in gone]

    async def _log(self, member: Member, at: float, how: str) -> Kill:
        self.members.remove(member)
        held = await asyncio.to_thread(held_by, self.services, member.incarnation)
        kill = Kill(at, member.incarnation, held, member.child.pid, how)
        self.kills.append(kill)
        return kill

    async def open_calls(self) -> dict[str, int]:
        """How many calls of each living worker are open, by its incarnation."""
        return await asyncio.to_thread(self._open_calls)

    def _open_calls(self) -> dict[str, int]:
        calls = read_calls(self.services)
        opened = {str(call["request_id"]).rpartition(".")[0] for call in calls if call["outcome"] == "open"}
        return {member.incarnation: len(held_by(self.services, member.incarnation) & opened) for member in self.members}


def environment(services: Services) -> dict[str, str]:
    """What a worker of a run is told."""
    return {
        "AIBROKER_KAFKA": services.kafka,
        "AIBROKER_MONGO": services.mongo,
        "AIBROKER_PREFIX": services.prefix,
        "AIBROKER_SETTINGS": str(SETTINGS),
        "AIBROKER_SESSION_TIMEOUT_S": str(SESSION_S),
        "AIBROKER_LEASE_S": str(LEASE_S),
        "AIBROKER_PROVIDERS_OPENAI_BASE_URL": f"{services.simulator}/v1",
        "AIBROKER_PROVIDERS_OPENAI_API_KEY": "key",
    }


def held_by(services: Services, incarnation: str) -> frozenset[str]:
    """The beginnings of the request ids of what is claimed in a worker's name."""
    query = {"owner": incarnation, "state": "claimed"}
    with pymongo.MongoClient[dict[str, Any]](services.mongo) as client:
        found = client[services.database]["jobs"].find(query, {"uid": 1, "generation": 1, "fence": 1})
        return frozenset(f"{job['uid']}/{job['generation']}/{job['fence']}" for job in found)


def _incarnation(child: Child) -> str:
    """The incarnation that a worker names in its log when it is ready."""
    return str(_event(child, "worker.ready")["incarnation"])


def _hit_at(child: Child) -> float:
    """When a worker killed itself, by its log."""
    return datetime.fromisoformat(str(_event(child, "failpoint.hit")["at"])).timestamp()


def _event(child: Child, name: str) -> Mapping[str, Any]:
    """The first event of that name in a worker's log."""
    for line in child.output().splitlines():
        event: Mapping[str, Any] = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
        if event.get("event") == name:
            return event
    raise RuntimeError(f"a worker does not tell of {name}; its log is {child.log}")
