"""What a file of jobs will probably use: counted input, output by percentiles of the latest answers, never above what a job allows."""

from decimal import Decimal
from typing import Any

import orjson

from broker.cli.estimate import Kind, by_model, estimates, rooms_of_jobs, summed
from broker.limits import Limit, Rulebook
from broker.outputs import Outputs
from broker.settings import Settings
from broker.tokens import count

TEXT = "write an advertisement for a bicycle"
SETTINGS = Settings.model_validate(
    {
        "providers": {"main": {"base_url": "http://provider"}},
        "routes": {"ours": [{"provider": "main", "model": "m"}]},
        "prices": [{"model": "m", "input": "1", "output": "2"}],
        "estimates": {"tag": "kind"},
    }
)


def record(model: str = "ours", **fields: Any) -> bytes:  # noqa: ANN401 fields of a body or of a job
    body = {"model": model, "messages": [{"role": "user", "content": TEXT}], **fields.pop("body", {})}
    return orjson.dumps({"tenant": "acme", "body": body, **fields})


def rows(records: list[bytes], outputs: Outputs | None = None) -> list[dict[str, Any]]:
    found = summed(records, Rulebook([], {}), "kind")
    return [row for _, row in estimates(found, SETTINGS, outputs or Outputs())]


def outputs(*lengths: int, tag: str = "") -> Outputs:
    made = Outputs()
    for tokens in lengths:
        made.learn("acme", "m", tag, tokens)
    return made


def test_input_is_counted_and_priced_at_the_routes_first_target() -> None:
    [row] = rows([record(body={"max_tokens": 1})] * 10)
    assert row["input_tokens"] == 10 * (count(TEXT, "ours") + 4)
    assert row["cost_usd_p50"] == (row["input_tokens"] + 2 * 10) * Decimal("0.000001")


def test_output_is_the_percentile_of_the_latest_answers_up_to_max_tokens() -> None:
    known = outputs(*[100] * 80, *[1_000] * 20)
    [row] = rows([record(), record(body={"max_tokens": 50}), record(body={"max_tokens": 500})], known)
    assert row["output_is"] == "learned"
    assert 250 <= row["output_tokens_p50"] <= 2 * 108 + 50
    assert 1_550 <= row["output_tokens_p90"] <= 1_080 + 50 + 500


def test_each_answer_of_several_has_its_length() -> None:
    [row] = rows([record(body={"max_tokens": 50, "n": 3})], outputs(*[100] * 80))
    assert row["output_tokens_p50"] == 150


def test_where_nothing_is_known_the_output_is_said_to_be_assumed() -> None:
    [row] = rows([record()])
    assert (row["output_tokens_p90"], row["output_is"]) == (256, "assumed")


def test_embeddings_have_no_output() -> None:
    [row] = rows(
        [orjson.dumps({"tenant": "a", "operation": "embeddings", "body": {"model": "m", "input": [TEXT, TEXT]}})]
    )
    assert (row["input_tokens"], row["output_tokens_p90"]) == (2 * count(TEXT, "m"), 0)


def test_a_model_without_a_price_has_no_cost() -> None:
    [row] = rows([record("nobody-knows-it")])
    assert (row["cost_usd_p50"], row["cost_usd_p90"]) == (None, None)


def test_kinds_are_apart_by_what_limits_look_at_and_shown_by_model() -> None:
    records = [record(tags={"kind": "ad"}), record(tags={"kind": "yes", "other": "x"}), record("m", batch_id="b")]
    found = summed(records, Rulebook([], {}), "kind")
    assert set(found) == {
        Kind("acme", "ours", None, (("kind", "ad"),)),
        Kind("acme", "ours", None, (("kind", "yes"),)),
        Kind("acme", "m", "b", ()),
    }
    shown = by_model(row for _, row in estimates(found, SETTINGS, Outputs()))
    assert [(row["model"], row["jobs"], row["output_tokens_p50"]) for row in shown] == [("ours", 2, 512), ("m", 1, 256)]


def served(priced_as: str, *models: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 fields of a provider
    return {"base_url": "http://provider", "priced_as": priced_as, "models": models, **fields}


def estimated(settings: dict[str, Any], *records: bytes) -> dict[str, Any]:
    found = summed(records, Rulebook([], {}), None)
    [(_, row)] = estimates(found, Settings.model_validate(settings), Outputs())
    return row


def test_many_short_jobs_do_not_cost_what_one_long_one_would() -> None:
    row = estimated(
        {"providers": {"main": served("google", "gemini-2.5-pro")}},
        *[record("gemini-2.5-pro", body={"max_tokens": 1, "prompt": "word " * 150_000})] * 2,
    )
    assert row["input_tokens"] > 200_000
    assert row["cost_usd_p90"] == (row["input_tokens"] * Decimal("1.25") + 2 * 10) / 1_000_000


def test_a_fee_for_each_request_is_counted_for_each_job() -> None:
    row = estimated({"providers": {"main": served("perplexity")}}, *[record("sonar", body={"max_tokens": 1})] * 3)
    assert row["cost_usd_p90"] == 3 * Decimal("0.012") + (row["input_tokens"] + 3) * Decimal("0.000001")


def test_the_price_is_that_of_the_providers_service_tier() -> None:
    prices = [{"model": "m", "input": "4", "output": "4"}, {"model": "m", "input": "2", "output": "2"}]
    prices[1]["service_tier"] = "flex"
    row = estimated({"providers": {"main": served("openai", "m", service_tier="flex")}, "prices": prices}, record("m"))
    assert row["cost_usd_p90"] == (row["input_tokens"] + 256) * Decimal("0.000002")


def test_a_target_without_a_price_is_passed_over_as_workers_do() -> None:
    settings = {
        "providers": {"main": served("openai"), "other": served("openai")},
        "routes": {"ours": [{"provider": "main", "model": "unpriced"}, {"provider": "other", "model": "m"}]},
        "prices": [{"model": "m", "input": "1", "output": "1"}],
    }
    row = estimated(settings, record())
    assert row["cost_usd_p90"] == (row["input_tokens"] + 256) * Decimal("0.000001")


def test_a_max_tokens_that_bounds_nothing_is_none() -> None:
    [row] = rows([record(body={"max_tokens": -5}), record(body={"max_tokens": 0})])
    assert row["output_tokens_p90"] == 2 * 256


def of_each_job(**fields: Any) -> Limit:  # noqa: ANN401 fields of a limit
    return Limit.model_validate({"scope": "job", "per": "lifetime", "at_limit": "reject", **fields})


def test_jobs_above_a_limit_of_each_job_are_counted_beside_what_the_largest_needs() -> None:
    rules = Rulebook([of_each_job(tokens=300), of_each_job(usd="0.001", tenant="*")], {})
    long = record(body={"prompt": "word " * 100})
    found = summed([record(), record(), long, long, record(body={"max_tokens": 1})], rules, None)
    tokens, usd = rooms_of_jobs(rules, found, SETTINGS, Outputs())
    assert (tokens["limit_of"], tokens["unit"], tokens["fits"], tokens["jobs_above"]) == ("job:*", "tokens", False, 2)
    assert tokens["needed_p90"] == count("word " * 100, "ours") + count(TEXT, "ours") + 4 + 256
    assert (usd["limit_of"], usd["fits"], usd["jobs_above"]) == ("job@*:*", True, 0)


def test_a_limit_of_another_tenants_jobs_is_not_looked_at() -> None:
    rules = Rulebook([of_each_job(tokens=1, tenant="globex")], {})
    assert rooms_of_jobs(rules, summed([record()], rules, None), SETTINGS, Outputs()) == []
