"""One job in, one outcome out: the stages together, on a store, a provider and a transport in memory."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from schemas.codes import Code
from tests.builders import (
    BODY,
    Bench,
    SomeHold,
    SomeQuota,
    a_ready,
    an_answer,
    an_error,
    one_after_another,
    some_settings,
)
from workers.quota.protocol import Denied, Hold, Need
from workers.stores.protocol import Fate, Finish, Waiting
from workers.transports.protocol import Call, Reply

MAIL = {**BODY, "messages": [{"role": "user", "content": "write to jane.doe@example.com"}]}


async def finish(bench: Bench, **fields: Any) -> Finish:  # noqa: ANN401 as `a_claim`
    end = await bench.process(**fields)
    assert isinstance(end, Finish), end
    assert bench.under_way == {}
    return end


def guarded(**actions: str) -> Any:  # noqa: ANN401 settings
    return some_settings(guards=actions)


async def test_a_job_is_answered_billed_and_told() -> None:
    bench = Bench(one_after_another(an_answer("hello")))
    end = await finish(bench, metadata={"row": 7})
    assert await bench.store.finish([end], "token") == [Fate.DONE]
    (job,) = bench.database.jobs.values()
    assert (job["state"], job["outbox"], "payload" in job) == ("succeeded", "token", False)
    assert job["result"]["output"]["choices"][0]["message"]["content"] == "hello"
    assert job["result"]["metadata"] == {"row": 7}
    assert job["result"]["cost_usd"] == job["row"]["cost_usd"]


async def test_what_reaches_the_provider_is_the_body_with_the_targets_model() -> None:
    routes = {"ours": [{"provider": "main", "model": "m"}]}
    bench = Bench(one_after_another(an_answer()), settings=some_settings(routes=routes))
    await finish(bench, body={**BODY, "model": "ours", "temperature": 0.5, "stream": True})
    (call,) = bench.transport.calls
    assert orjson.loads(call.body) == {**BODY, "model": "m", "temperature": 0.5}


@pytest.mark.parametrize(
    ("fields", "state", "code"),
    [
        ({"dedline": "x"}, "rejected", Code.UNKNOWN_FIELD),
        ({"cancel": "no"}, "cancelled", Code.CANCELLED),
        ({"body": {**BODY, "model": "nobody's"}}, "rejected", Code.UNKNOWN_MODEL),
        ({"reply_to": "results.nobody"}, "rejected", Code.REPLY_UNKNOWN),
        ({"max_cost_usd": "0.01"}, "rejected", Code.COST_LIMIT),
        ({"takeovers": 10}, "dead", Code.WORKERS_LOST),
        (
            {"arrived_at": datetime(2025, 1, 1, tzinfo=UTC), "deadline": "2026-01-01T00:00:00Z"},
            "expired",
            Code.EXPIRED,
        ),
    ],
)
async def test_what_cannot_run_ends_without_a_call_a_hold_or_a_row(
    fields: dict[str, Any], state: str, code: Code
) -> None:
    bench = Bench(one_after_another(an_answer()))
    end = await finish(bench, metadata={"row": 7}, **fields)
    assert (end.state, end.result["code"], end.row, end.keep_payload) == (state, code, None, True)
    assert end.result["metadata"] == {"row": 7}
    assert (bench.transport.calls, bench.quota.holds, bench.rows()) == ([], [], [])


async def test_an_operation_that_no_provider_serves_is_refused() -> None:
    bench = Bench(one_after_another(an_answer()))
    bench.caller.providers["main"].operations = frozenset({"embeddings"})
    end = await finish(bench)
    assert (end.state, end.result["code"], bench.transport.calls) == ("rejected", "unsupported_operation", [])


async def test_a_hold_is_what_the_job_will_probably_use() -> None:
    bench = Bench(one_after_another(an_answer(tokens=(20, 0, 0, 3, 0))))
    end = await finish(bench, body={**BODY, "max_tokens": 100})
    (hold,) = bench.quota.holds
    tokens, usd = hold.held
    assert 100 < tokens < 150
    assert usd == Decimal(tokens - 100 + 2 * 100) / 1_000_000
    assert hold.used == (23, Decimal("0.000026"))
    assert not hold.released
    assert end.row is not None
    assert end.row["quota_keys"] == hold.keys


async def test_a_hold_is_for_as_many_answers_as_are_asked_for() -> None:
    held = []
    for body in ({"max_tokens": 100}, {"max_tokens": 100, "n": 5}):
        bench = Bench(one_after_another(an_answer()))
        await finish(bench, body={**BODY, **body})
        held.append(bench.quota.holds[0].held[0])
    one, five = held
    assert 400 <= five - one < 410


async def test_what_is_learned_is_the_length_of_one_answer_and_no_job_asks_for_more_than_a_provider_gives() -> None:
    bench = Bench(one_after_another(an_answer(tokens=(20, 0, 0, 500, 0))))
    for _ in range(30):
        await finish(bench, body={**BODY, "n": 5})
    await finish(bench, body={**BODY, "n": 10**18})
    assert 450 < bench.quota.holds[29].held[0] < 550
    assert bench.quota.holds[30].held[0] < 128 * 100 + 100


@pytest.mark.parametrize(
    ("asked", "answered", "paid"),
    [
        (None, "default", ("settings/m", "default")),
        (None, "flex", ("settings/m+flex", "flex")),
        ("flex", "flex", ("settings/m+flex", "flex")),
        ("flex", "default", ("settings/m", "default")),
        ("flex", None, ("settings/m+flex", "flex")),
        ("batch", "default", ("settings/m+batch", "default")),
    ],
)
async def test_a_call_is_paid_by_the_tier_at_which_the_provider_answered(
    asked: str | None, answered: str | None, paid: tuple[str, str]
) -> None:
    main = {"base_url": "http://provider", "models": ["m"], "service_tier": asked}
    tiers = [{"model": "m", "input": "0.1", "output": "0.2", "service_tier": tier} for tier in ("flex", "batch")]
    prices = [{"model": "m", "input": "1", "output": "2"}, *tiers]
    settings = some_settings(providers={"main": main}, prices=prices)
    end = await finish(Bench(one_after_another(an_answer(tier=answered)), settings=settings))
    assert end.row is not None
    assert (end.row["price_id"], end.row["service_tier"]) == paid


async def test_a_job_that_asks_for_a_tier_pays_the_one_at_which_it_was_answered() -> None:
    flex = {"model": "m", "input": "0.1", "output": "0.2", "service_tier": "flex"}
    settings = some_settings(prices=[{"model": "m", "input": "1", "output": "2"}, flex])
    paid = []
    for answered in ("flex", "default", None):
        end = await finish(
            Bench(one_after_another(an_answer(tier=answered)), settings=settings),
            body={**BODY, "service_tier": "flex"},
        )
        assert end.row is not None
        paid.append((end.row["price_id"], end.row["service_tier"]))
    assert paid == [("settings/m+flex", "flex"), ("settings/m", "default"), ("settings/m+flex", "flex")]


async def test_before_a_job_is_rejected_for_want_of_room_its_input_is_counted() -> None:
    hopeless = Denied("reject", "quota:tenant:acme:day", datetime.now(UTC), "too large", hopeless=True)

    class Full(SomeQuota):
        """Has room for less than was asked for at first."""

        async def hold(self, need: Need, now: datetime) -> Hold | Denied:
            asked.append(need.tokens)
            return await super().hold(need, now) if need.tokens < asked[0] else hopeless

        def try_hold(self, need: Need, now: datetime) -> Hold | None:
            del need, now
            return None

    asked: list[int] = []
    quota = Full()
    messages = [{"role": "user", "content": " " * 4_000 + "hi"}]  # a quarter of a token a byte would be too many
    bench = Bench(one_after_another(an_answer()), quota=quota)
    end = await finish(bench, body={**BODY, "messages": messages, "max_tokens": 10})
    estimated, counted = asked
    assert end.state == "succeeded"
    assert 5 * counted < estimated
    assert end.row is not None
    assert end.row["held_tokens"] == counted


async def test_a_hold_is_for_the_dearest_target_that_may_be_called() -> None:
    routes = {"ours": [{"provider": "main", "model": "m"}, {"provider": "main", "model": "dear"}]}
    prices = [{"model": "m", "input": "1", "output": "2"}, {"model": "dear", "input": "10", "output": "20"}]
    bench = Bench(one_after_another(an_answer()), settings=some_settings(routes=routes, prices=prices))
    await finish(bench, body={**BODY, "model": "ours", "max_tokens": 100})
    tokens, usd = bench.quota.holds[0].held
    assert usd == Decimal(10 * (tokens - 100) + 20 * 100) / 1_000_000


async def test_a_finish_that_is_fenced_later_gives_its_hold_back() -> None:
    bench = Bench(one_after_another(an_answer()))
    ready = await bench.claimed()
    await bench.pipeline.process(ready, bench.under_way)
    ready.revoke()
    assert [hold.revoked for hold in bench.quota.holds] == [True]


@pytest.mark.parametrize("policy", ["wait", "reject"])
async def test_at_the_limit_a_job_waits_or_is_rejected(policy: Any) -> None:  # noqa: ANN401 a Literal
    tomorrow = datetime.now(UTC) + timedelta(hours=3)
    denied = Denied(policy, "quota:tenant:acme:day", tomorrow, "100 requests a day are used up")
    bench = Bench(one_after_another(an_answer()), quota=SomeQuota(denied))
    end = await bench.process()
    assert bench.transport.calls == []
    if policy == "wait":
        assert isinstance(end, Waiting)
        assert (end.due_at, end.why_waiting, end.wait_key) == (tomorrow, "quota", "quota:tenant:acme:day")
        assert end.last_failure == "quota_exceeded"
    else:
        assert isinstance(end, Finish)
        assert (end.state, end.result["code"]) == ("rejected", "quota_exceeded")
        assert end.result["message"] == "100 requests a day are used up"


async def test_what_is_held_follows_the_lengths_of_answers_and_never_passes_max_tokens() -> None:
    bench = Bench(one_after_another(an_answer(tokens=(10, 0, 0, 1_000, 0))))
    for number in range(30):
        await bench.process(id=f"acme/{number}", job_id=str(number))
    await bench.process(id="acme/capped", job_id="capped", body={**BODY, "max_tokens": 40})
    first, last, capped = (bench.quota.holds[place].held[0] for place in (0, 29, 30))
    assert first < 300
    assert 1_000 < last < 1_080 + 300
    assert capped < 40 + 300


async def test_answers_of_each_value_of_the_tag_have_lengths_of_their_own() -> None:
    settings = some_settings(estimates={"tag": "kind"})
    long, short = an_answer(tokens=(10, 0, 0, 900, 0)), an_answer(tokens=(10, 0, 0, 9, 0))
    bench = Bench(one_after_another(*([long] * 30 + [short] * 31)), settings=settings)
    for number in range(60):
        await bench.process(id=f"acme/{number}", job_id=str(number), tags={"kind": "ad" if number < 30 else "yes"})
    await bench.process(id="acme/x", job_id="x", tags={"kind": "yes"})
    assert bench.quota.holds[-1].held[0] < 100


class Falling(SomeQuota):
    """Has room for every model but one."""

    async def hold(self, need: Need, now: datetime) -> Hold | Denied:
        """Only of `m` there is no more."""
        if need.model == "m":
            return await super().hold(need, now)
        self.holds.append(SomeHold(need.tokens, need.usd))
        return self.holds[-1]


TWO_MODELS = {"providers": {"main": {"base_url": "http://p"}}, "prices": [{"model": "m", "input": "1", "output": "2"}]}
TWO_MODELS["prices"] += [{"model": "small", "input": "0.1", "output": "0.2"}]


async def test_at_the_limit_a_job_is_answered_by_the_cheaper_model_at_its_price() -> None:
    denied = Denied("cheaper_model", "quota:tenant:acme:day", datetime.now(UTC), "used up", model="small")
    bench = Bench(one_after_another(an_answer()), settings=some_settings(**TWO_MODELS), quota=Falling(denied))
    end = await bench.process()
    assert isinstance(end, Finish)
    assert (end.state, end.result["target"]["request_model"]) == ("succeeded", "small")
    assert Decimal(str(end.result["cost_usd"])) == Decimal("0.000002")


async def test_where_the_cheaper_model_has_no_room_either_the_job_waits() -> None:
    tomorrow = datetime.now(UTC) + timedelta(hours=3)
    denied = Denied("cheaper_model", "quota:tenant:acme:day", tomorrow, "used up", model="small")
    bench = Bench(one_after_another(an_answer()), settings=some_settings(**TWO_MODELS), quota=SomeQuota(denied))
    end = await bench.process()
    assert isinstance(end, Waiting)
    assert (end.why_waiting, end.due_at) == ("quota", tomorrow)
    bench.quota.answer = replace(denied, hopeless=True)
    end = await bench.process()
    assert isinstance(end, Finish)
    assert end.result["code"] == "quota_exceeded"


async def test_at_the_limit_a_job_goes_on_in_the_lowest_priority() -> None:
    denied = Denied("lower_priority", "quota:tenant:acme:day", datetime.now(UTC), "used up")
    bench = Bench(one_after_another(an_answer()), quota=SomeQuota(denied))
    end = await bench.process()
    assert isinstance(end, Waiting)
    assert (end.why_waiting, end.priority, end.wait_key) == ("lower_priority", "batch", None)
    assert await bench.store.wait([end]) == [Fate.DONE]
    [claim] = await bench.store.take([end.id], "token", end.due_at)
    assert claim.priority == "batch"


async def test_a_job_does_not_say_that_a_quota_is_used_up_which_nobody_could_ask() -> None:
    denied = Denied("wait", "quota:tenant:acme:day", datetime.now(UTC) + timedelta(seconds=3), "no", doubtful=True)
    end = await Bench(one_after_another(an_answer()), quota=SomeQuota(denied)).process()
    assert isinstance(end, Waiting)
    assert (end.why_waiting, end.last_failure) == ("quota", None)


@pytest.mark.parametrize(
    ("answer", "code", "remedy"),
    [
        (an_error(429, retry_after="30"), "rate_limited", "send later or give more time"),
        (an_error(401), "credential_refused", "renew the key"),
    ],
)
async def test_a_job_that_waited_until_its_deadline_says_what_stood_in_the_way(
    answer: Reply, code: str, remedy: str
) -> None:
    bench = Bench(one_after_another(answer))
    wait = await bench.process()
    assert await bench.store.wait([wait]) == [Fate.DONE]
    [claim] = await bench.store.take([wait.id], "token", wait.due_at)
    ready = a_ready(claim)
    ready.deadline = (datetime.now(UTC) - timedelta(seconds=1)).timestamp()
    end = await bench.pipeline.process(ready, bench.under_way)
    assert isinstance(end, Finish)
    assert (end.state, end.result["code"]) == ("expired", code)
    assert end.result["message"].startswith("The deadline passed; ")
    assert remedy in end.result["message"]


async def test_a_wait_goes_back_to_the_store() -> None:
    bench = Bench(one_after_another(an_error(429, retry_after="30")))
    wait = await bench.process(attempts=2)
    assert isinstance(wait, Waiting)
    assert await bench.store.wait([wait]) == [Fate.DONE]
    (job,) = bench.database.jobs.values()
    assert (job["state"], job["owner"], job["why_waiting"], job["attempts"]) == ("waiting", None, "rate_limited", 2)


async def test_personal_data_does_not_leave_where_it_is_to_be_redacted() -> None:
    bench = Bench(one_after_another(an_answer()), settings=guarded(pii_input="redact"))
    end = await finish(bench, body=MAIL)
    assert b"jane.doe" not in bench.transport.calls[0].body
    assert [finding["action"] for finding in end.result["guards"]] == ["redact"]


async def test_personal_data_does_not_come_back_where_it_is_to_be_redacted() -> None:
    bench = Bench(one_after_another(an_answer("jane.doe@example.com")), settings=guarded(pii_output="redact"))
    end = await finish(bench)
    assert "jane.doe" not in str(end.result)
    assert end.result["output"]["id"] == "memory-1"
    assert end.row is not None
    assert [finding["direction"] for finding in end.result["guards"]] == ["output"]


async def test_personal_data_does_not_come_back_as_text_either() -> None:
    def answer(_: Call) -> Reply:
        said = an_answer("jane.doe@example.com").body
        return Reply(200, {}, said.replace(b'"index":0', b'"index":' + b"9" * 30))

    bench = Bench(answer, settings=guarded(pii_output="redact"))
    end = await finish(bench)
    assert "output" not in end.result
    assert "memory-1" in end.result["output_text"]
    assert "jane.doe" not in end.result["output_text"]


async def test_an_answer_that_a_guard_blocks_is_billed_but_not_told() -> None:
    bench = Bench(one_after_another(an_answer("jane.doe@example.com")), settings=guarded(pii_output="block"))
    end = await finish(bench)
    assert (end.state, end.result["code"], "output" in end.result) == ("rejected", "blocked", False)
    assert "jane.doe" not in str(end.result)
    assert end.row is not None
    assert end.row["billed"] is True
    assert end.result["cost_usd"] == end.row["cost_usd"]
    assert end.result["guards"] == [{"guard": "pii", "direction": "output", "action": "block", "found": {"email": 1}}]
    assert bench.quota.holds[0].used is not None


async def test_a_request_that_a_guard_blocks_is_told_with_what_was_found() -> None:
    bench = Bench(one_after_another(an_answer()), settings=guarded(pii_input="block"))
    end = await finish(bench, body=MAIL)
    assert (end.state, end.result["code"], bench.transport.calls) == ("rejected", "blocked", [])
    assert end.result["message"].startswith("pii found ")
    assert end.result["guards"] == [{"guard": "pii", "direction": "input", "action": "block", "found": {"email": 1}}]


async def test_what_a_stage_did_not_expect_passes_out_and_leaves_nothing_under_way() -> None:
    def broken(_: Call) -> Reply:
        raise ZeroDivisionError

    bench = Bench(broken)
    with pytest.raises(ZeroDivisionError):
        await bench.process()
    assert bench.under_way == {}
    assert [hold.released for hold in bench.quota.holds] == [True]
