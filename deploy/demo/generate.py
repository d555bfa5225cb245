"""Makes the demo's jobs, the same bytes each time: `python -m deploy.demo.generate` writes `<priority>.jsonl` beside this file.

Each line is one record as it goes to Kafka, a few are no jobs at all. Every job has an id, so that a second run pays for nothing twice.
`PLAN` says how many of which kind there are.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).parent
SEED = 1893
PRIORITIES: Mapping[str, float] = MappingProxyType({"interactive": 0.2, "normal": 0.5, "batch": 0.3})
TENANTS: Mapping[str, float] = MappingProxyType({"acme": 0.45, "globex": 0.3, "initech": 0.25})
PLAN: Mapping[str, int] = MappingProxyType(
    {
        "chat": 680,
        "long": 40,  # 5 to 20 kB
        "personal": 60,  # e-mail addresses, telephone and card numbers, which a guard redacts
        "fails_first": 40,  # the simulator answers 500 at first
        "overloaded_first": 10,  # the simulator answers 503 at first
        "embeddings": 60,
        "responses": 56,
        "invalid": 30,  # rejected
        "repeated": 8,  # a line that is there already: the same job
        "conflicting": 4,  # the id of another job: a dead letter
        "no_job": 12,  # dead letters
    }
)
"""How many lines there are of each kind; initech's are above its quota of the day."""

_SENTENCE = (
    "the invoice order customer delivery answer please summarise translate letter contract because before after quickly"
    " warehouse payment reminder of to a in for with without report quarter figures meeting notes compare explain write"
    " friendly short list table reasons next steps question product manual page error message battery screen return"
)
_WORDS = _SENTENCE.split()
_ASKS = ("Summarise", "Translate into French", "Answer politely", "List the open points of", "Classify", "Shorten")
_PERSONAL = (
    "My address is {name}@example.com, answer there.",
    "Call me at +1 202 555 0{number:03d} in the morning.",
    "I paid with card 4111 1111 1111 1111, order {number}.",
)
_INVALID: Sequence[Mapping[str, Any]] = (
    {"dedline": "2030-01-01T00:00:00Z"},
    {"deadline": "2024-01-01T00:00:00Z"},
    {"body": {"model": "gpt-4o-mini", "messages": []}},
    {"body": {"model": "no-such-model", "messages": [{"role": "user", "content": "hi"}]}},
    {"body": {"model": "gpt-4o-mini", "messages": [{"content": "who says this?"}]}},
    {"reply_to": "results.nobody"},
    {"max_cost_usd": 0.5},
    {
        "max_cost_usd": "0.000001",
        "body": {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4000},
    },
    {"operation": "images", "body": {"model": "gpt-image-1", "prompt": "a lighthouse"}},
    {"tags": {"cost centre": "4711"}},
)
_NO_JOBS = (
    b"hello, is anybody there?",
    b"[1, 2, 3]",
    b'{"id": "demo-cut", "body": {"model": "gpt-4o-mini", "mess',
    b'{"id": "demo-nan", "body": {"model": "gpt-4o-mini", "temperature": NaN}}',
    b"id;tenant;prompt",
    b'{"id": "demo-tenant", "tenant": "Acme/EU", "body": {"model": "gpt-4o-mini"}}',
    b"caf\xe9 \xff\xfe in no encoding of ours, forty-odd bytes",
    b"null",
    b'"only a string"',
    b'{"id": "", "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}}',
    b"<job><model>gpt-4o-mini</model></job>",
    b'{"id": 17, "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}}',
)


class _Writer:
    """Draws what is in a job; only `random()` is used, because it gives the same numbers in every version of Python."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 the same demo for everybody, not a secret
        self._made = 0

    def between(self, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, items: Sequence[Any]) -> Any:  # noqa: ANN401 whatever the items are
        return items[int(self._random.random() * len(items))]

    def by_share(self, shares: Mapping[str, float]) -> str:
        drawn = self._random.random()
        for name, share in shares.items():
            drawn -= share
            if drawn < 0:
                return name
        return name

    def shuffled(self, items: Sequence[bytes]) -> list[bytes]:
        return [item for _, item in sorted((self._random.random(), item) for item in items)]

    def text(self, size: int) -> str:
        words: list[str] = []
        length = 0
        while length < size:
            words.append(self.pick(_WORDS))
            length += len(words[-1]) + 1
        return " ".join(words)

    def job(self, **fields: Any) -> bytes:  # noqa: ANN401 any JSON value
        self._made += 1
        job = {"id": f"demo-{self._made:04d}", "tenant": self.by_share(TENANTS), **fields}
        if self._made % 7 == 0:
            job["tags"] = {"team": self.pick(("sales", "support", "legal")), **job.get("tags", {})}
        if self._made % 9 == 0:
            job["metadata"] = {"row": self._made}
        return json.dumps(job, separators=(",", ":")).encode()

    def chat(self, model: str, content: str) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": self.between(40, 200)}


def _line(writer: _Writer, kind: str, number: int) -> bytes:
    """One line of a kind, `number` counting those of its kind."""
    if kind == "no_job":
        return _NO_JOBS[number]
    if kind == "invalid":
        return writer.job(**{"body": writer.chat("gpt-4o-mini", "hi"), **_INVALID[number % len(_INVALID)]})
    if kind == "embeddings":
        texts = [writer.text(writer.between(20, 300)) for _ in range(writer.between(1, 3))]
        return writer.job(operation=kind, body={"model": "text-embedding-3-small", "input": texts, "dimensions": 16})
    if kind == "responses":
        body = {"model": "gpt-5-nano", "input": writer.text(writer.between(20, 600)), "max_output_tokens": 100}
        return writer.job(operation=kind, body=body)
    return writer.job(body=_asked(writer, kind))


def _asked(writer: _Writer, kind: str) -> dict[str, Any]:
    """The body of a chat of a kind."""
    if kind == "personal":
        sentence = writer.pick(_PERSONAL).format(name=writer.pick(_WORDS), number=writer.between(100, 199))
        return writer.chat("gpt-4o-mini", f"{writer.text(writer.between(20, 400))}. {sentence}")
    if kind == "long":
        return writer.chat("gpt-4o-mini", writer.text(writer.between(5_000, 19_500)))
    model = {"fails_first": "gpt-4.1-mini", "overloaded_first": "gpt-4.1-nano"}.get(kind)
    if model is None and writer.between(1, 10) == 1:
        return writer.chat("gpt-4o-mini", "hi")
    size = writer.between(20, 400) if writer.between(1, 4) > 1 else writer.between(400, 2_500)
    model = model or writer.by_share({"gpt-4o-mini": 0.8, "gpt-4o": 0.2})
    return writer.chat(model, f"{writer.pick(_ASKS)}: {writer.text(size)}")


def _again(writer: _Writer, known: Sequence[bytes], *, conflicting: bool) -> bytes:
    """A line that is there already, or another job under its id."""
    line: bytes = writer.pick(known)
    if not conflicting:
        return line
    job = json.loads(line)
    return json.dumps({**job, "body": {**job["body"], "user": "somebody else"}}, separators=(",", ":")).encode()


def lines(seed: int = SEED) -> dict[str, list[bytes]]:
    """The lines of each priority."""
    writer = _Writer(seed)
    made: dict[str, list[bytes]] = {priority: [] for priority in PRIORITIES}
    chats = [_line(writer, "chat", number) for number in range(PLAN["chat"])]
    for line in chats:
        made[writer.by_share(PRIORITIES)].append(line)
    for kind, count in PLAN.items():
        for number in range(count if kind != "chat" else 0):
            if kind in {"repeated", "conflicting"}:
                priority = writer.by_share(PRIORITIES)
                line = _again(
                    writer, [known for known in made[priority] if known in chats], conflicting=kind == "conflicting"
                )
                made[priority].append(line)
            else:
                made[writer.by_share(PRIORITIES)].append(_line(writer, kind, number))
    return {priority: writer.shuffled(them) for priority, them in made.items()}


def files() -> dict[str, bytes]:
    """The content of each file."""
    return {f"{priority}.jsonl": b"".join(line + b"\n" for line in them) for priority, them in lines().items()}


def main() -> None:
    """Write the files."""
    for name, content in files().items():
        (HERE / name).write_bytes(content)


if __name__ == "__main__":
    main()
