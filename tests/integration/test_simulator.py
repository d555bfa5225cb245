"""The simulator as a process of its own, asked over real connections."""

import asyncio
import base64
import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

MESSAGES = [{"role": "user", "content": "How much is it?"}]
CHAT = {"model": "gpt-4o-mini", "messages": MESSAGES}


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The simulator's process and address."""
    command = [sys.executable, "-m", "broker.local.simulator", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = json.loads(process.stdout.readline())
            assert ready["event"] == "simulator.ready"
            yield process, ready["url"]
        finally:
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as (_, address):
        yield address


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": "Bearer key"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10, trust_env=False) as asking:
        await asking.put("/sim/behaviour", json={})
        await asking.post("/sim/reset")
        yield asking


async def behave(client: httpx.AsyncClient, **default: object) -> None:
    (await client.put("/sim/behaviour", json={"default": default})).raise_for_status()


async def chat(client: httpx.AsyncClient, *, job: str | None = None, **more: object) -> httpx.Response:
    headers = {"x-client-request-id": job} if job else {}
    return await client.post("/v1/chat/completions", json={**CHAT, **more}, headers=headers)


async def calls(client: httpx.AsyncClient, since: int = 0) -> list[dict[str, Any]]:
    """The invoice, over a line of its own: the one before may be about to be closed."""
    async with httpx.AsyncClient(base_url=client.base_url, timeout=10, trust_env=False) as asking:
        answer = await asking.get("/sim/calls", params={"since": since})
    return [json.loads(line) for line in answer.text.splitlines()]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the condition is in another process
            await asyncio.sleep(0.01)


async def test_a_chat_is_answered_and_stands_on_the_invoice(client: httpx.AsyncClient) -> None:
    before = time.time()
    answer = await chat(client, job="uid/1/1.1")
    body = answer.json()
    (call,) = await calls(client)
    assert body["choices"][0]["finish_reason"] == "stop"
    assert len(body["choices"][0]["message"]["content"]) == 200
    assert body["model"] == "gpt-4o-mini-2024-07-18"
    assert body["usage"] == call["usage"]
    assert body["id"] == call["id"] == answer.headers["x-request-id"]
    assert before <= call["opened"] <= call["closed"] <= time.time()
    assert {name: call[name] for name in ("request_id", "model", "path", "status", "outcome", "cost")} == {
        "request_id": "uid/1/1.1",
        "model": "gpt-4o-mini",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "answered",
        "cost": "0.00003165",  # 11 prompt tokens at 0.15 and 50 of output at 0.60 dollars a million
    }


async def test_a_streamed_chat_comes_in_events_and_tells_its_usage_when_asked(client: httpx.AsyncClient) -> None:
    answer = await chat(client, stream=True, stream_options={"include_usage": True})
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    (call,) = await calls(client)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (events[-1], len(text), chunks[-2]["choices"][0]["finish_reason"]) == ("[DONE]", 200, "stop")
    assert chunks[-1]["usage"] == call["usage"]


async def test_a_stream_without_usage_is_charged_all_the_same(client: httpx.AsyncClient) -> None:
    answer = await chat(client, stream=True)
    (call,) = await calls(client)
    assert '"usage"' not in answer.text
    assert (call["usage"], call["cost"]) == (None, "0.00003165")


async def test_a_stream_can_take_its_time(client: httpx.AsyncClient) -> None:
    await behave(client, answer={"text_bytes": 60, "stream_gap_ms": 20})
    started = time.monotonic()
    await chat(client, stream=True)
    assert time.monotonic() - started >= 5 * 0.02


async def test_embeddings_depend_on_the_text_alone(client: httpx.AsyncClient) -> None:
    ask = {"model": "text-embedding-3-small", "input": ["a", "b", "a"]}
    body = (await client.post("/v1/embeddings", json=ask)).json()
    first, other, again = (item["embedding"] for item in body["data"])
    assert (len(first), first == again, first == other) == (1536, True, False)
    assert sum(x * x for x in first) == pytest.approx(1, rel=0.2)
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    coded = {**ask, "dimensions": 4, "encoding_format": "base64"}
    packed = (await client.post("/v1/embeddings", json=coded)).json()["data"][0]["embedding"]
    assert len(struct.unpack("<4f", base64.b64decode(packed))) == 4
    assert (await calls(client))[0]["cost"] == "0.00000006"


async def test_responses_answer_in_their_own_shape(client: httpx.AsyncClient) -> None:
    await behave(client, answer={"output_tokens": 7, "reasoning_tokens": 5, "cached_tokens": 4})
    ask = {"model": "gpt-5-mini", "input": "How much is it?", "instructions": "Be brief."}
    body = (await client.post("/v1/responses", json=ask)).json()
    assert (body["status"], body["output"][0]["content"][0]["type"]) == ("completed", "output_text")
    assert body["usage"] == {
        "input_tokens": 18,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 30,
    }
    (call,) = await calls(client)
    assert (call["usage"], call["cost"]) == (body["usage"], "0.0000276")


async def test_moderations_flag_words_and_cost_nothing(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/moderations", json={"input": ["a rose", "I will kill"]})).json()
    assert [result["flagged"] for result in body["results"]] == [False, True]
    assert body["results"][1]["categories"]["violence"] is True
    (call,) = await calls(client)
    assert (call["cost"], call["usage"], call["model"]) == ("0", None, "omni-moderation-latest")


async def test_models_are_listed_and_not_on_the_invoice(client: httpx.AsyncClient) -> None:
    names = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
    assert {"gpt-4o-mini", "text-embedding-3-small", "omni-moderation-latest"} <= names
    assert await calls(client) == []


async def test_keys_are_asked_for_and_can_be_bad(client: httpx.AsyncClient) -> None:
    await client.put("/sim/behaviour", json={"keys": {"bad": ["stolen"], "no_quota": ["poor"]}})
    answers = {}
    for name, header in (("none", ""), ("stolen", "Bearer stolen"), ("poor", "Bearer poor"), ("good", "Bearer good")):
        answer = await client.post("/v1/chat/completions", json=CHAT, headers={"authorization": header})
        answers[name] = (answer.status_code, answer.json().get("error", {}).get("code"))
    assert answers == {
        "none": (401, None),
        "stolen": (401, "invalid_api_key"),
        "poor": (429, "insufficient_quota"),
        "good": (200, None),
    }


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, None),
        (b'{"model": "gpt-4o-mini", "messages": []}', 400, None),
        (b'{"model": "nope", "messages": [{"role": "user", "content": "x"}]}', 404, "model_not_found"),
    ],
)
async def test_a_wrong_request_gets_openais_error(
    client: httpx.AsyncClient, content: bytes, status: int, code: str | None
) -> None:
    answer = await client.post("/v1/chat/completions", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert [(call["status"], call["cost"]) for call in await calls(client)] == [(status, "0")]


async def test_a_body_of_more_than_a_megabyte_is_taken(client: httpx.AsyncClient) -> None:
    answer = await chat(client, messages=[{"role": "user", "content": "word " * 600_000}])
    assert answer.json()["usage"]["prompt_tokens"] == 750_007


async def test_limits_are_told_on_every_answer_and_a_refusal_says_when(client: httpx.AsyncClient) -> None:
    await behave(client, limits={"rpm": 2, "tpm": 100_000})
    first, second, refused = [await chat(client, max_tokens=100) for _ in range(3)]
    assert [answer.status_code for answer in (first, second, refused)] == [200, 200, 429]
    assert [a.headers["x-ratelimit-remaining-requests"] for a in (first, second, refused)] == ["1", "0", "0"]
    assert first.headers["x-ratelimit-remaining-tokens"] == str(100_000 - 111)
    assert 29 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


async def test_retry_after_can_be_a_date_or_milliseconds(client: httpx.AsyncClient) -> None:
    await behave(client, limits={"rpm": 1, "retry_after": "date", "headers": "after_429"})
    quiet, dated = await chat(client), await chat(client)
    assert "x-ratelimit-limit-requests" not in quiet.headers
    assert dated.headers["x-ratelimit-limit-requests"] == "1"
    assert 50 < parsedate_to_datetime(dated.headers["retry-after"]).timestamp() - time.time() <= 61
    await behave(client, limits={"rpm": 1, "retry_after": "milliseconds"})
    assert 50_000 < int((await chat(client)).headers["retry-after-ms"]) <= 60_000


async def test_a_planned_overload_says_when_to_come_again(client: httpx.AsyncClient) -> None:
    await behave(client, faults={"503": 1}, fault_retry_after_s=7)
    answer = await chat(client)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize("name", ["400", "401", "404", "500", "503", "529", "insufficient_quota"])
async def test_a_planned_error_is_answered_and_costs_nothing(client: httpx.AsyncClient, name: str) -> None:
    await behave(client, faults={name: 1})
    answer = await chat(client)
    status = 429 if name == "insufficient_quota" else int(name)
    (call,) = await calls(client)
    assert (answer.status_code, call["status"], call["fault"], call["cost"]) == (status, status, name, "0")
    assert answer.json()["error"]["message"]


async def test_the_first_calls_of_each_job_fail(client: httpx.AsyncClient) -> None:
    await behave(client, fail_first={"calls": 1, "fault": "500"})
    answers = [await chat(client, job=job) for job in ("a/1/1.1", "a/1/1.2", "b/1/1.1")]
    assert [answer.status_code for answer in answers] == [500, 200, 500]


@pytest.mark.parametrize("fault", ["cut_before", "cut_middle", "length_over"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_line_is_a_broken_answer_that_costs_nothing(
    client: httpx.AsyncClient, fault: str, *, stream: bool
) -> None:
    await behave(client, faults={fault: 1})
    with pytest.raises(httpx.RemoteProtocolError if fault != "cut_before" else httpx.TransportError):
        await chat(client, stream=stream)
    (call,) = await calls(client)
    assert (call["outcome"], call["status"], call["usage"], call["cost"]) == ("cut", None, None, "0")
    assert call["closed"] is not None


@pytest.mark.parametrize("fault", ["malformed", "garbage", "length_under"])
async def test_an_answer_that_nobody_can_read_is_no_json_and_costs_nothing(
    client: httpx.AsyncClient, fault: str
) -> None:
    await behave(client, faults={fault: 1})
    answer = await chat(client)
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        answer.json()
    (call,) = await calls(client)
    assert (call["outcome"], call["status"], call["usage"], call["cost"]) == ("answered", 200, None, "0")


async def test_json_of_another_shape_can_be_answered(client: httpx.AsyncClient) -> None:
    await behave(client, faults={"wrong_shape": 1})
    assert "choices" not in (await chat(client)).json()


async def test_a_stall_stays_open_until_the_client_goes(client: httpx.AsyncClient) -> None:
    await behave(client, faults={"stall": 1})
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(chat(client))
        await until(lambda: has_open(client, 1))
        (call,) = await calls(client)
        assert (call["outcome"], call["status"], call["closed"]) == ("open", None, None)
        asking.cancel()
    await until(lambda: has_open(client, 0))
    (call,) = await calls(client)
    assert (call["outcome"], call["status"], call["fault"], call["cost"]) == ("client_gone", None, "stall", "0")


async def has_open(client: httpx.AsyncClient, count: int) -> bool:
    return bool((await client.get("/sim/stats")).json()["open"] == count)


async def test_a_client_that_goes_during_the_latency_is_not_charged(client: httpx.AsyncClient) -> None:
    await behave(client, latency={"ms": 60_000})
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/chat/completions", json=CHAT, timeout=0.2)
    await until(lambda: has_open(client, 0))
    (call,) = await calls(client)
    assert (call["outcome"], call["cost"], call["status"]) == ("client_gone", "0", None)


async def test_latency_is_kept(client: httpx.AsyncClient) -> None:
    await behave(client, latency={"kind": "uniform", "low_ms": 500, "high_ms": 600})
    await asyncio.gather(*(chat(client) for _ in range(5)))
    assert all(0.5 <= call["closed"] - call["opened"] < 5 for call in await calls(client))
    assert (await client.get("/sim/stats")).json()["max_open"] == 5


async def test_a_dripping_answer_is_whole_in_the_end(client: httpx.AsyncClient) -> None:
    await behave(client, faults={"drip": 1}, drip={"bytes": 100, "every_ms": 20})
    started = time.monotonic()
    answer = await chat(client)
    (call,) = await calls(client)
    assert time.monotonic() - started >= 6 * 0.02
    assert (answer.json()["usage"], call["outcome"]) == (call["usage"], "answered")


async def test_an_oversized_answer_is_as_large_as_was_asked_for(client: httpx.AsyncClient) -> None:
    await behave(client, faults={"oversized": 1}, oversized_bytes=5_000_000)
    answer = await chat(client)
    assert len(answer.content) > 5_000_000
    assert answer.json()["choices"]


async def test_one_model_can_behave_unlike_the_others(client: httpx.AsyncClient) -> None:
    await client.put("/sim/behaviour", content=b"models: {gpt-4o: {faults: {500: 1}}, own: {answer: {text: hi}}}")
    answers = [await chat(client, model=model) for model in ("gpt-4o", "gpt-4o-mini", "own")]
    assert [answer.status_code for answer in answers] == [500, 200, 200]
    assert answers[2].json()["choices"][0]["message"]["content"] == "hi"


async def test_a_wrong_behaviour_is_refused_with_a_sentence_and_changes_nothing(client: httpx.AsyncClient) -> None:
    await behave(client, latency={"ms": 1})
    answer = await client.put("/sim/behaviour", json={"default": {"latncy": {}}})
    assert answer.status_code == 400
    assert answer.json() == {"error": "default.latncy: there is no such field; did you mean latency?"}
    shown = (await client.get("/sim/behaviour")).json()
    assert shown["default"]["latency"] == {"kind": "fixed", "ms": 1.0}
    assert (await client.put("/sim/behaviour", json=shown)).json() == shown


async def test_calls_can_be_read_from_a_row_on_and_forgotten(client: httpx.AsyncClient) -> None:
    for number in range(3):
        await chat(client, job=f"j{number}/1/1.1")
    assert [call["request_id"] for call in await calls(client, since=1)] == ["j1/1/1.1", "j2/1/1.1"]
    assert (await client.get("/sim/calls?since=x")).status_code == 400
    assert (await client.post("/sim/reset")).json()["calls"] == 0
    assert await calls(client) == []


async def test_calls_outlive_the_process_and_a_termination_ends_it_at_once(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    headers = {"authorization": "Bearer key"}
    with running("--calls", str(file)) as (process, address):
        async with httpx.AsyncClient(base_url=address, headers=headers, trust_env=False) as first:
            await chat(first, job="a/1/1.1")
            await behave(first, faults={"stall": 1})
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(raises_transport_error(chat(first)))
                await until(lambda: has_open(first, 1))
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 5) == 0
                await asking
    with running("--calls", str(file)) as (_, address):
        async with httpx.AsyncClient(base_url=address, headers=headers, trust_env=False) as second:
            assert [call["outcome"] for call in await calls(second)] == ["answered", "cut"]
            assert (await second.get("/sim/stats")).json()["calls"] == 2


async def is_written(file: Path) -> bool:
    return bool(file.stat().st_size)  # noqa: ASYNC240 - a file of its own on this machine


async def raises_transport_error(asking: Awaitable[httpx.Response]) -> None:
    with pytest.raises(httpx.TransportError):
        await asking


async def test_a_killed_simulator_has_kept_what_it_had_answered(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    with running("--calls", str(file)) as (process, address):
        async with httpx.AsyncClient(
            base_url=address, headers={"authorization": "Bearer key"}, trust_env=False
        ) as asking:
            await chat(asking, job="a/1/1.1")
        await until(lambda: is_written(file))
        process.kill()
    assert json.loads(file.read_bytes())["request_id"] == "a/1/1.1"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (["--behaviour", "absent.yaml"], 2, "absent.yaml: cannot be read: No such file or directory"),
        (["--calls", "/proc/none/calls"], 3, "cannot be opened: No such file or directory; name another with --calls"),
    ],
)
def test_a_start_that_fails_says_why_in_a_sentence(arguments: list[str], exit_code: int, sentence: str) -> None:
    command = [sys.executable, "-m", "broker.local.simulator", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (exit_code, "")
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_told(url: str) -> None:
    command = [sys.executable, "-m", "broker.local.simulator", "--port", url.rpartition(":")[2]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 3
    assert ended.stderr.startswith("the simulator cannot listen on 127.0.0.1:")
