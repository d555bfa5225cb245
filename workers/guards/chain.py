"""The chain of guards of a worker: what they find in a request or in an answer, and what becomes of it."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from workers.guards.protocol import Action, Guard
from workers.guards.texts import Place, answer_texts, replaced, request_texts

LONG_BYTES = 100_000
"""Above this a scan stops the loop for longer than a thread costs."""


class Verdict(NamedTuple):
    """What the guards say: `action` is what was done, `findings` are `GuardFinding`s as plain data, `body` the same object if unchanged."""

    action: Action
    findings: list[dict[str, Any]]
    body: dict[str, Any]


class Chain:
    """The guards in their order, with one action for requests and one for answers; a later guard sees what an earlier one redacted."""

    def __init__(self, input_action: Action, output_action: Action, guards: Sequence[Guard]) -> None:
        self._input_action: Action = input_action if guards else "allow"
        self._output_action: Action = output_action if guards else "allow"
        self._guards = tuple(guards)

    def check_request(self, operation: str, body: dict[str, Any]) -> Verdict:
        """Check what goes to the provider; linear, about 6 us for 1 kB."""
        if self._input_action == "allow":
            return Verdict("allow", [], body)
        return self._check("input", self._input_action, body, request_texts(operation, body))

    def check_answer(self, operation: str, output: dict[str, Any]) -> Verdict:
        """Check what came back from the provider."""
        if self._output_action == "allow":
            return Verdict("allow", [], output)
        return self._check("output", self._output_action, output, answer_texts(operation, output))

    async def check_long_request(self, operation: str, body: dict[str, Any], size: int) -> Verdict:
        """Check like `check_request`, in a thread where the body's JSON has more than 100,000 bytes (`size`)."""
        if size > LONG_BYTES:
            return await asyncio.to_thread(self.check_request, operation, body)
        return self.check_request(operation, body)

    async def check_long_answer(self, operation: str, output: dict[str, Any], size: int) -> Verdict:
        """Check like `check_answer`, in a thread where the output's JSON has more than 100,000 bytes (`size`)."""
        if size > LONG_BYTES:
            return await asyncio.to_thread(self.check_answer, operation, output)
        return self.check_answer(operation, output)

    def _check(
        self, direction: str, action: Action, body: dict[str, Any], texts: Iterator[tuple[Place, str]]
    ) -> Verdict:
        found: dict[str, dict[str, int]] = {}
        changes: dict[Place, str] = {}
        for place, text in texts:
            for guard in self._guards:
                hit = guard.check(text)
                if hit is not None:
                    kinds = found.setdefault(guard.name, {})
                    for kind, times in hit.kinds.items():
                        kinds[kind] = kinds.get(kind, 0) + times
                    changes[place] = text = hit.redacted  # noqa: PLW2901 the next guard reads on from here
        if not found:
            return Verdict("allow", [], body)
        findings = [
            {"guard": name, "direction": direction, "action": action, "found": kinds} for name, kinds in found.items()
        ]
        return Verdict(action, findings, replaced(body, changes) if action == "redact" else body)
