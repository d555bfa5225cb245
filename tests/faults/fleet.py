"""The workers of one run: starts them, kills and stops them, cuts them off, and says what each then had in its hands."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pymongo

from broker.local.processes import Child
from broker.local.stack import Stack
from tests.faults.history import Kill
from tests.faults.money import JUST_S, is_error
from tests.faults.proxy import HOST, Lines, Weather
from tests.faults.reading import Services, read_calls
from tests.faults.scenario import Terms
from tests.faults.told import events

SETTINGS = Path(__file__).with_name("settings.yaml")
_KILLED = -9
_FENCED = 70
_DECLARED_S = 90.0
_TOLD_S = 30.0
_RECENT = 5_000
_POLL_S = 0.05


@dataclass(frozen=True)
class Member:
    """A worker process and its incarnation."""

    child: Child
    incarnation: str
    fail_at: str = ""


@dataclass(frozen=True)
class Fault:
    """What was done to a service or a line: what, when (unix seconds), for how long, and what was seen of it."""

    how: str
    at: float
    seconds: float
    seen: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Fleet:
    """The workers of one run, by their prefix.

    `kills` is the kill log, `faults` what was done to services and lines, `logs` the files of all workers that were ever started.
    """

    stack: Stack
    services: Services
    lines: Lines
    terms: Terms
    members: list[Member] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    logs: set[Path] = field(default_factory=set)

    async def start(self, fail_at: Sequence[str], behind: Sequence[str] | None = None) -> list[Member]:
        """Start a worker for each failpoint ("" for none), side by side; `behind` names the services that they reach through a proxy."""
        behind = self.terms.behind if behind is None else behind
        started = await asyncio.gather(*(self._start(name, behind) for name in fail_at))
        self.members += started
        return started

    async def _start(self, fail_at: str, behind: Sequence[str]) -> Member:
        told = environment(self.services, self.terms) | _through(self.lines, behind) | {"AIBROKER_FAIL_AT": fail_at}
        [child] = await self.stack.start_workers(1, told)
        self.logs.add(child.log)
        return Member(child, incarnation(child), fail_at)

    async def stop(self) -> None:
        """Ask all to stop, and wait for it."""
        await asyncio.gather(*(self.stack.stop_worker(member.child) for member in self.members))
        await self.fallen()
        self.members.clear()

    async def leave(self, member: Member) -> None:
        """Ask one worker to stop, and wait until it has ended well."""
        self.members.remove(member)
        await self.stack.stop_worker(member.child)
        if member.child.exit_code:
            raise RuntimeError(f"a worker ended with {member.child.exit_code}; its log is {member.child.log}")

    async def kill(self, member: Member, least_open: int) -> Kill | None:
        """Kill a worker that has so many calls open, and keeps up; None where it has not, and goes on."""
        if kill := await self._caught(member, least_open):
            await self.stack.kill_worker(member.child)
        return kill

    async def pause(self, member: Member, least_open: int, seconds: float) -> Kill | None:
        """Stop such a worker for longer than its lease, and let it go on: it has to see that it is dead."""
        if kill := await self._caught(member, least_open):
            await self._dead_to_the_others(member, seconds)
            member.child.resume()
            await self._ends_as_fenced(kill, member, f"stopped {time.time() - kill.at:.0f} s")
        return kill

    async def _caught(self, member: Member, least_open: int) -> Kill | None:
        kill = await caught(member.child, self.services, member.incarnation, least_open)
        return self._note(member, kill) if kill else None

    async def cut_off(self, member: Member, weather: Weather, seconds: float) -> None:
        """Take the database from the one worker behind the proxy for longer than its lease."""
        at = time.time()
        self.lines.mongo.turn(weather)
        kill = await self._log(member, at, weather)
        await self._dead_to_the_others(member, seconds)
        self.lines.mongo.turn("fair")
        await self._ends_as_fenced(kill, member, f"mongo {weather} {time.time() - at:.0f} s")

    async def _dead_to_the_others(self, member: Member, at_least_s: float) -> None:
        """Wait so long, and until a worker is declared dead: on a slow machine nobody may say so for a while."""
        await asyncio.sleep(at_least_s)  # the fault itself
        lease = {"_id": member.incarnation, "fenced": True}
        give_up = time.monotonic() + _DECLARED_S
        with pymongo.MongoClient[dict[str, Any]](self.services.mongo) as client:
            workers = client[self.services.database]["workers"]
            while time.monotonic() < give_up:
                if await asyncio.to_thread(workers.find_one, lease):
                    return
                await asyncio.sleep(_POLL_S)  # nothing tells a stranger of it
        raise RuntimeError(f"nobody declared a worker dead within {_DECLARED_S:.0f} s; its log is {member.child.log}")

    async def _ends_as_fenced(self, kill: Kill, member: Member, how: str) -> None:
        told = await member.child.ended(_TOLD_S)
        self.kills[self.kills.index(kill)] = replace(kill, how=how, until=time.time())
        await self.stack.kill_worker(member.child)
        if not told or member.child.exit_code != _FENCED:
            raise RuntimeError(f"a worker that was {how} went on, or ended otherwise; its log is {member.child.log}")

    async def weather(self, service: str, weather: Weather, seconds: float) -> None:
        """Have the lines to a service behave badly for a while."""
        proxy = self.lines.of(service)
        at, lines = time.time(), len(proxy)
        proxy.turn(weather)
        await asyncio.sleep(seconds)  # the fault itself
        proxy.turn("fair")
        self.faults.append(Fault(f"{service} {weather}", at, round(seconds, 1), {"lines": lines}))

    def broken_calls(self) -> list[Kill]:
        """The calls whose line to the provider a proxy has broken: each was cut off from its worker then."""
        return [
            Kill(at, "", frozenset({request.rpartition(".")[0]}), how="line")
            for at, request in self.lines.provider.broken
        ]

    async def fallen(self) -> list[Kill]:
        """Log the workers that have killed themselves since the last look."""
        gone = [member for member in self.members if not member.child.running and member.child.exit_code]
        for member in gone:
            if member.child.exit_code != _KILLED or not member.fail_at:
                raise RuntimeError(f"a worker ended with {member.child.exit_code}; its log is {member.child.log}")
            await self.stack.kill_worker(member.child)
        return [await self._log(member, _hit_at(member.child), member.fail_at) for member in gone]

    async def _log(self, member: Member, at: float, how: str) -> Kill:
        held = await asyncio.to_thread(held_by, self.services, member.incarnation)
        return self._note(member, Kill(at, member.incarnation, held, member.child.pid, how))

    def _note(self, member: Member, kill: Kill) -> Kill:
        self.members.remove(member)
        self.kills.append(kill)
        return kill

    async def busy(self, calls: int, over: Callable[[], bool]) -> list[Member]:
        """Wait for workers that have so many calls open; none where it is over before."""
        while not over():
            counts = await self.open_calls()
            if found := [member for member in self.members if counts.get(member.incarnation, 0) >= calls]:
                return found
            await asyncio.sleep(_POLL_S)  # the simulator tells nobody of its calls
        return []

    async def open_calls(self) -> dict[str, int]:
        """How many calls of each living worker are open, by its incarnation."""
        return await asyncio.to_thread(self._open_calls)

    def _open_calls(self) -> dict[str, int]:
        opened = opened_at(read_calls(self.services, _RECENT), time.time())
        return {member.incarnation: len(held_by(self.services, member.incarnation) & opened) for member in self.members}


async def caught(child: Child, services: Services, incarnation: str, least_open: int = 0) -> Kill | None:
    """Stop a worker where it is, and say what is claimed in its name, however long the reading takes.

    None where it has fewer calls open, or answers of more than a second ago in its hands, and goes on: one that lags behind is the machine's
    doing, and says nothing about a kill.
    """
    at = time.time()
    child.suspend()
    held, calls = await asyncio.gather(
        asyncio.to_thread(held_by, services, incarnation), asyncio.to_thread(read_calls, services, _RECENT)
    )
    if len(held & opened_at(calls, at)) < least_open or held & answered_before(calls, at - JUST_S):
        child.resume()
        return None
    return Kill(at, incarnation, held, child.pid, "random")


def opened_at(calls: Sequence[Mapping[str, Any]], at: float) -> set[str]:
    """The beginnings of the request ids of the calls that were open at that moment."""
    return {
        str(call["request_id"]).rpartition(".")[0]
        for call in calls
        if call["opened"] <= at and (call["closed"] is None or call["closed"] >= at)
    }


def answered_before(calls: Sequence[Mapping[str, Any]], at: float) -> set[str]:
    """The beginnings of the request ids of the calls that had a good answer by then."""
    return {
        str(call["request_id"]).rpartition(".")[0]
        for call in calls
        if call["outcome"] == "answered" and call["closed"] < at and not is_error(call)
    }


def environment(services: Services, terms: Terms) -> dict[str, str]:
    """What a worker of a run is told."""
    return {
        "AIBROKER_KAFKA": services.kafka,
        "AIBROKER_MONGO": services.mongo,
        "AIBROKER_PREFIX": services.prefix,
        "AIBROKER_SETTINGS": str(SETTINGS),
        "AIBROKER_SESSION_TIMEOUT_S": str(terms.session_s),
        "AIBROKER_LEASE_S": str(terms.lease_s),
        "AIBROKER_PROVIDERS_OPENAI_BASE_URL": f"{services.simulator}/v1",
        "AIBROKER_PROVIDERS_OPENAI_API_KEY": "key",
        "AIBROKER_PROVIDERS_OPENAI_TIMEOUT_S": str(terms.call_s),
    }


def _through(lines: Lines, behind: Sequence[str]) -> dict[str, str]:
    """The addresses of the proxies in place of the services'."""
    addresses = {
        "kafka": ("AIBROKER_KAFKA", f"{HOST}:{lines.kafka.port}"),
        "mongo": ("AIBROKER_MONGO", f"mongodb://{HOST}:{lines.mongo.port}/?directConnection=true"),
        "provider": ("AIBROKER_PROVIDERS_OPENAI_BASE_URL", f"http://{HOST}:{lines.provider.port}/v1"),
    }
    return dict(addresses[service] for service in behind)


def held_by(services: Services, incarnation: str) -> frozenset[str]:
    """The beginnings of the request ids of what is claimed in a worker's name."""
    query = {"owner": incarnation, "state": "claimed"}
    with pymongo.MongoClient[dict[str, Any]](services.mongo) as client:
        found = client[services.database]["jobs"].find(query, {"uid": 1, "generation": 1, "fence": 1})
        return frozenset(f"{job['uid']}/{job['generation']}/{job['fence']}" for job in found)


def incarnation(child: Child) -> str:
    """The incarnation that a worker names in its log when it is ready."""
    return str(_event(child, "worker.ready")["incarnation"])


def _hit_at(child: Child) -> float:
    """When a worker killed itself, by its log."""
    return datetime.fromisoformat(str(_event(child, "failpoint.hit")["at"])).timestamp()


def _event(child: Child, name: str) -> Mapping[str, Any]:
    """The first event of that name in a worker's log."""
    for event in events(child.output().splitlines()):
        if event["event"] == name:
            return event
    raise RuntimeError(f"a worker does not tell of {name}; its log is {child.log}")
