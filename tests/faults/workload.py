"""What a fault run sends: jobs of all kinds, the same job twice, other jobs under a known id, jobs that cannot run, and no jobs at all."""

import json
import random
from dataclasses import dataclass
from typing import Any

PRIORITIES = ("interactive", "normal", "batch")
SMALL_TENANT = "small"
"""A tenant whose requests are limited."""

_SHARES = {
    "named": 0.78,
    "unnamed": 0.08,
    "once": 0.04,
    "small": 0.04,
    "repeated": 0.02,
    "conflicting": 0.01,
    "invalid": 0.02,
}


@dataclass(frozen=True)
class Sending:
    """A record to send, without the deployment's prefix."""

    topic: str
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Workload:
    """The records of one seed: the same seed, the same records."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._known: list[tuple[str, dict[str, Any]]] = []
        self._made = 0

    def sendings(self, count: int) -> list[Sending]:
        """As many records."""
        return [self._sending() for _ in range(count)]

    def _sending(self) -> Sending:
        self._made += 1
        drawn = self._random.random()
        for kind, share in _SHARES.items():
            drawn -= share
            if drawn < 0:
                return self._of_kind(kind)
        return Sending(self._topic(), self._random.randbytes(self._random.randint(1, 2_000)), b"k", (("x", b"1"),))

    def _of_kind(self, kind: str) -> Sending:
        if kind in {"repeated", "conflicting"} and self._known:
            topic, known = self._random.choice(self._known)
            body = known["body"] if kind == "repeated" else {**known["body"], "user": f"other-{self._made}"}
            return Sending(topic, _written({**known, "body": body}))
        job: dict[str, Any] = {
            "id": f"j{self._made:05d}",
            "tenant": f"t{self._random.randrange(4)}",
            "body": self._body(),
        }
        if kind == "unnamed":
            job["metadata"] = {"row": self._made}
            del job["id"]
        elif kind == "once":
            job["execution"] = "at_most_once"
        elif kind == "small":
            job["tenant"] = SMALL_TENANT
        elif kind == "invalid":
            job.update(self._random.choice(_INVALID))
        elif self._random.random() < 0.1:
            job |= {"reply_to": "results.replies", "reply_partition": self._random.randrange(8)}
        return self._sent(kind, job)

    def _sent(self, kind: str, job: dict[str, Any]) -> Sending:
        sending = Sending(self._topic(), _written(job))
        if kind == "named":
            self._known.append((sending.topic, job))
        return sending

    def _topic(self) -> str:
        return f"jobs.{self._random.choice(PRIORITIES)}"

    def _body(self) -> dict[str, Any]:
        model = "gpt-4o-mini" if self._random.random() < 0.9 else "gpt-4o"
        content = "please " * self._random.randint(1, 200)
        return {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self._random.randint(1, 60),
        }


_INVALID: tuple[dict[str, Any], ...] = (
    {"dedline": "2030-01-01T00:00:00Z"},
    {"deadline": "2020-01-01T00:00:00Z"},
    {"body": {"model": "gpt-nobody-knows", "messages": [{"role": "user", "content": "hi"}]}},
    {"reply_to": "results.nobody"},
    {"max_cost_usd": 1},
)


def _written(job: dict[str, Any]) -> bytes:
    return json.dumps(job).encode()
