"""The demo's files are what their generator makes, and hold what the demo promises to show."""

import json
from collections import Counter
from datetime import UTC, datetime

from broker.codec import Decoded, NotAJob, Place, decode
from broker.local.simulator.behaviour import read_behaviour
from broker.settings import load
from deploy.demo import generate

LINES = [line for lines in generate.lines().values() for line in lines]


def decoded() -> list[Decoded | NotAJob]:
    at = datetime(2026, 12, 1, 8, tzinfo=UTC)
    return [decode(line, (), Place("c", "jobs.normal", 0, number, at)) for number, line in enumerate(LINES)]


def test_the_files_are_what_the_generator_makes() -> None:
    for name, content in generate.files().items():
        assert (generate.HERE / name).read_bytes() == content, f"run python -m deploy.demo.generate: {name} is old"


def test_there_are_a_thousand_lines_of_all_sizes() -> None:
    sizes = sorted(len(line) for line in LINES)
    assert len(LINES) == sum(generate.PLAN.values()) == 1_000
    assert sizes[0] <= 50
    assert 15_000 <= sizes[-1] <= 20_480
    assert sum(sizes) < 3_000_000


def test_no_line_holds_a_line_break() -> None:
    assert not [line for line in LINES if b"\n" in line or b"\r" in line]


def test_as_many_lines_are_no_jobs_as_the_plan_says() -> None:
    assert sum(isinstance(each, NotAJob) for each in decoded()) == generate.PLAN["no_job"]


def test_every_job_has_an_id_so_that_a_second_run_pays_for_nothing() -> None:
    jobs = [line for line, each in zip(LINES, decoded(), strict=True) if isinstance(each, Decoded)]
    assert all(json.loads(line)["id"] for line in jobs)


def test_only_repeated_and_conflicting_jobs_share_an_id() -> None:
    digests: dict[str, list[bytes]] = {}
    for each in decoded():
        if isinstance(each, Decoded):
            digests.setdefault(each.key, []).append(each.digest)
    shared = sum(len(them) - 1 for them in digests.values())
    assert shared == generate.PLAN["repeated"] + generate.PLAN["conflicting"]
    assert sum(len(set(them)) - 1 for them in digests.values()) == generate.PLAN["conflicting"]


def test_one_tenant_is_above_its_quota_and_all_three_are_there() -> None:
    settings = load({}, generate.HERE / "settings.yaml")
    tenants = Counter(each.tenant for each in decoded() if isinstance(each, Decoded) and each.parsed.job)
    assert set(tenants) == {"acme", "globex", "initech"}
    limits = {quota.tenant: quota.requests for quota in settings.quotas}
    assert tenants["initech"] > (limits["initech"] or 0) + 50


def test_the_provider_fails_first_for_the_models_that_the_plan_names() -> None:
    behaviour = read_behaviour((generate.HERE / "behaviour.yaml").read_bytes())
    models = Counter(each.parsed.job.model for each in decoded() if isinstance(each, Decoded) and each.parsed.job)
    failing = {model: models[model] for model in behaviour.models if behaviour.of(model).fail_first.calls}
    assert failing == {"gpt-4.1-mini": generate.PLAN["fails_first"], "gpt-4.1-nano": generate.PLAN["overloaded_first"]}
