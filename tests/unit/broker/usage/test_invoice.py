"""Exports of providers are read exactly, and one that cannot be used is refused with file, line and what is allowed."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from broker.errors import UsageError
from broker.usage.invoice import Invoice, read

DAY = datetime(2026, 11, 1, tzinfo=UTC)
NEXT = datetime(2026, 11, 2, tzinfo=UTC)
OPENAI = {
    "object": "page",
    "has_more": False,
    "data": [
        {
            "object": "bucket",
            "start_time": int(DAY.timestamp()),
            "end_time": int(NEXT.timestamp()),
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 1_000,
                    "input_cached_tokens": 800,
                    "output_tokens": 500,
                    "num_model_requests": 5,
                    "model": "gpt-4o-mini-2024-07-18",
                    "project_id": None,
                }
            ],
        }
    ],
}

OPENAI_COLUMNS = "start_time,end_time,num_model_requests,model,input_tokens"


def written(folder: Path, content: object, name: str = "invoice") -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return file


def read_text(folder: Path, content: object) -> Invoice:
    return read(written(folder, content))


def test_openais_usage_is_sums_of_buckets_whose_input_includes_what_was_cached(tmp_path: Path) -> None:
    form, provider, (line,) = read_text(tmp_path, OPENAI)
    assert (form, provider) == ("openai-usage", "openai")
    assert (line.start, line.end, line.model, line.calls) == (DAY, NEXT, "gpt-4o-mini-2024-07-18", 5)
    assert line.counts == {"input_tokens": 1_000, "cache_read_input_tokens": 800, "output_tokens": 500}
    assert line.key is None


def test_openais_usage_as_csv_says_the_same_as_its_json(tmp_path: Path) -> None:
    table = (
        "start_time,end_time,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens,project_id\n"
        f"{DAY.timestamp():.0f},{NEXT.timestamp():.0f},5,gpt-4o-mini-2024-07-18,1000,500,800,\n"
    )
    (of_csv,), (of_json,) = read_text(tmp_path, table).lines, read_text(tmp_path, OPENAI).lines
    assert of_csv._replace(place="") == of_json._replace(place="")


def test_embeddings_have_no_output_column_and_nothing_is_said_of_it(tmp_path: Path) -> None:
    (line,) = read_text(tmp_path, f"{OPENAI_COLUMNS},project_id,user_id,api_key_id\n1,2,5,m,1000,p,u,k\n").lines
    assert line.counts == {"input_tokens": 1_000}


@pytest.mark.parametrize(("kind", "refused"), [("embeddings", False), ("completions", True)])
def test_a_result_says_by_its_object_whether_it_has_output(kind: str, *, refused: bool, tmp_path: Path) -> None:
    bucket = OPENAI["data"][0]  # type: ignore[index]
    result = {**bucket["results"][0], "object": f"organization.usage.{kind}.result"}
    del result["output_tokens"], result["input_cached_tokens"]
    content = {"data": [{**bucket, "results": [result]}]}
    if not refused:
        assert read_text(tmp_path, content).lines[0].counts == {"input_tokens": 1_000}
        return
    with pytest.raises(UsageError, match=r"data\[0\].results\[0\]: output_tokens: is missing; expected are"):
        read_text(tmp_path, content)


def test_every_column_of_openais_own_table_may_be_there(tmp_path: Path) -> None:
    columns = (
        "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,"
        "service_tier,input_tokens,output_tokens,input_cached_tokens,input_uncached_tokens,input_text_tokens,"
        "output_text_tokens,input_cached_text_tokens,input_audio_tokens,input_cached_audio_tokens,output_audio_tokens"
    )
    cells = "1,2,a,b,p,5,u,k,m,false,default,1000,500,800,200,1000,500,800,0,0,0"
    (line,) = read_text(tmp_path, f"{columns}\n{cells}\n").lines
    assert line.counts == {"input_tokens": 1_000, "cache_read_input_tokens": 800, "output_tokens": 500}
    without_cached = columns.replace("input_cached_tokens,", ""), cells.replace(",800,200", ",200")
    (line,) = read_text(tmp_path, "\n".join(without_cached)).lines
    assert line.counts == {"input_tokens": 1_000, "output_tokens": 500}


def test_openais_costs_are_exact_dollars(tmp_path: Path) -> None:
    result = {"object": "organization.costs.result", "amount": {"value": 0.1, "currency": "usd"}, "line_item": None}
    page = {**OPENAI, "data": [{**OPENAI["data"][0], "results": [result]}]}  # type: ignore[index]
    form, _, (line,) = read_text(tmp_path, page)
    assert (form, line.cost, line.counts) == ("openai-costs", Decimal("0.1"), None)


def test_anthropics_input_is_what_was_fresh_read_from_and_written_to_the_cache(tmp_path: Path) -> None:
    result = {
        "uncached_input_tokens": 1_500,
        "cache_creation": {"ephemeral_1h_input_tokens": 1_000, "ephemeral_5m_input_tokens": 500},
        "cache_read_input_tokens": 200,
        "output_tokens": 500,
        "model": "claude-x",
    }
    bucket = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z", "results": [result]}
    form, provider, (line,) = read_text(tmp_path, {"data": [bucket], "has_more": False})
    assert (form, provider, line.start, line.end) == ("anthropic-usage", "anthropic", DAY, NEXT)
    assert line.counts == {
        "input_tokens": 3_200,
        "cache_read_input_tokens": 200,
        "cache_creation_input_tokens": 1_500,
        "output_tokens": 500,
    }


def test_anthropics_table_is_a_day_a_line(tmp_path: Path) -> None:
    table = (
        "usage_date_utc,model_version,api_key,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens\n"
        "2026-11-01,claude-x,key,10,1,2,3,7\n"
    )
    (line,) = read_text(tmp_path, table).lines
    assert (line.start, line.end, line.model) == (DAY, NEXT, "claude-x")
    assert line.counts is not None
    assert (line.counts["input_tokens"], line.counts["output_tokens"]) == (16, 7)


def test_anthropics_costs_are_cents(tmp_path: Path) -> None:
    result = {"currency": "USD", "amount": "123.78912", "model": "claude-x", "description": "tokens"}
    bucket = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z", "results": [result]}
    (line,) = read_text(tmp_path, {"data": [bucket]}).lines
    assert line.cost == Decimal("1.2378912")


def test_a_neutral_line_is_a_call_or_a_sum_and_its_amount_keeps_every_digit(tmp_path: Path) -> None:
    lines = read_text(
        tmp_path,
        '{"request_id": "u/1/1.1", "at": "2026-11-01T08:00:00Z", "cost_usd": 0.000000000000000000001, "input_tokens": 3}\n'
        '{"request_id": null, "start": "2026-11-01", "end": "2026-11-02", "cost_usd": "5", "calls": 2}\n',
    ).lines
    assert (lines[0].key, lines[0].cost, lines[0].counts) == ("u/1/1.1", Decimal("1E-21"), {"input_tokens": 3})
    assert (lines[1].key, lines[1].start, lines[1].calls, lines[1].place) == (None, DAY, 2, "2")


def test_a_call_of_the_simulator_that_failed_for_nothing_is_free(tmp_path: Path) -> None:
    call = {
        "request_id": "u/1/1.1",
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini",
        "path": "/v1/chat/completions",
        "prompt_tokens": 9,
        "cached_tokens": 0,
        "output_tokens": 0,
        "reasoning_tokens": 0,
        "status": 429,
        "opened": 1793520000.5,
        "closed": 1793520001.5,
        "usage": None,
        "cost": "0",
        "outcome": "answered",
    }
    form, _, lines = read_text(tmp_path, f"{json.dumps(call)}\n{json.dumps({**call, 'cost': '0.1', 'usage': {}})}\n")
    assert form == "simulator"
    assert [(line.free, line.counts is None) for line in lines] == [(True, True), (False, False)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("request_id,cost_uds\na,1\n", ":2: cost_uds: there is no such column; did you mean cost_usd?"),
        ("request_id,cost_usd\na,1\nb,dear\n", ":3: cost_usd: 'dear' is no amount"),
        ("request_id,cost_usd\na,-1\n", ":2: cost_usd: '-1' is no amount"),
        ("request_id,input_tokens\na,1.5\n", ":2: input_tokens: '1.5' is no whole number"),
        ("request_id,cost_usd\na\n", ":2: has more or fewer cells"),
        ("request_id,at\na,yesterday\n", ":2: at: 'yesterday' is no time"),
        ("start,end,cost_usd\n2026-11-02,2026-11-01,1\n", ":2: a sum needs a start and a later end"),
        ("request_id,cost_usd\n,1\n", ":2: neither a call"),
        ("colour,taste\nred,sour\n", ":2: these columns are of no export that is known (colour, taste)"),
        ('{"request_id": "a", "cost_usd": "1"}\n{"request_id": \n', ":2: is not JSON"),
        ('{"request_id": "a", "cost_usd": NaN}\n', ":1: cost_usd: 'nan' is no amount"),
        (
            f"{OPENAI_COLUMNS},ouput_tokens\n1,2,1,m,5,5\n",
            ":2: ouput_tokens: there is no such column; did you mean output_",
        ),
        (
            f"{OPENAI_COLUMNS},Output Tokens\n1,2,1,m,5,5\n",
            "did you mean output_tokens? expected are start_time, end_time",
        ),
        (
            f"{OPENAI_COLUMNS},output_tokens,cached_tokens\n1,2,1,m,5,5,1\n",
            ":2: cached_tokens: there is no such column",
        ),
        (
            f"{OPENAI_COLUMNS},output_audio_tokens\n1,2,1,m,5,0\n",
            ":2: output_tokens: is missing; expected are start_time",
        ),
        ("start_time,end_time,amount_value,currency\n1,2,5,eur\n", ":2: currency: there is no such column"),
        (
            "usage_date_utc,model_versoin,usage_input_tokens_no_cache,usage_output_tokens\n2026-11-01,m,1,2\n",
            ":2: model_versoin: there is no such column; did you mean model_version?",
        ),
        ("", ":1: there is no line in it"),
        ('{"data": [], "has_more": true}', "has_more is true"),
        ('{"data": [{"results": 5}]}', "data[0]: has no list `results`"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_what_is_allowed(content: str, said: str, tmp_path: Path) -> None:
    file = written(tmp_path, content)
    with pytest.raises(UsageError) as refused:
        read(file)
    assert str(file) in str(refused.value)
    assert said in str(refused.value)


def test_a_wrong_value_inside_one_document_is_told_with_its_line(tmp_path: Path) -> None:
    content = json.dumps(OPENAI, indent=1).replace("500", '"many"')
    line = next(number for number, text in enumerate(content.split("\n"), 1) if "many" in text)
    with pytest.raises(UsageError, match=rf":{line}: data\[0\].results\[0\]: output_tokens: 'many'"):
        read_text(tmp_path, content)


def test_a_currency_that_is_not_the_ledgers_is_refused(tmp_path: Path) -> None:
    bucket = {"starting_at": "2026-11-01", "ending_at": "2026-11-02", "results": [{"amount": "1", "currency": "EUR"}]}
    with pytest.raises(UsageError, match="currency: 'EUR' is not what the ledger is in; usd is allowed"):
        read_text(tmp_path, {"data": [bucket]})


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "none.csv")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = "request_id,at,model,cost_usd,cost_usd\na,2026-11-01T00:00:00Z,m,999,1\n"
    with pytest.raises(UsageError, match="invoice:1: cost_usd: is a column twice; leave one of them"):
        read_text(tmp_path, text)
