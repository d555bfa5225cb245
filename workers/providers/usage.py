"""Reading the token counts that a provider reports into the five of the ledger."""

from workers.providers.protocol import Tokens

MOST_TOKENS = 1_000_000_000
"""No call uses that many; a larger count is a mistake, and mistakes are not billed."""


class UsageMalformed(ValueError):  # noqa: N818 - says what was found
    """A count is negative, no integer, or absurd."""


def count(counts: dict[str, object], name: str, other_name: str = "") -> int:
    """The count of that name, else of the other name; 0 where neither is there."""
    value = counts.get(name)
    if value is None:
        value = counts.get(other_name)
        if value is None:
            return 0
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise UsageMalformed(f"its usage has {name} that are no count")
    return value


def details(usage: dict[str, object], name: str, other_name: str) -> dict[str, object]:
    """The object of that name, else of the other name; an empty one where neither is there."""
    value = usage.get(name)
    if value is None:
        value = usage.get(other_name)
        if value is None:
            return {}
    if not isinstance(value, dict):
        raise UsageMalformed(f"its usage has {name} that are no object")
    return value


def read_usage(usage: object) -> Tokens | None:
    """The counts of a `usage` object of chat, embeddings or responses; None where nothing is reported.

    OpenAI counts cached tokens within the input and reasoning within the output. Where the numbers prove that another
    provider counts them apart, they are added.

    Raises:
        UsageMalformed: A count is negative, no integer, or absurd.
    """
    if usage is None or usage == {}:
        return None
    if not isinstance(usage, dict):
        raise UsageMalformed("its usage is no object")
    taken = count(usage, "prompt_tokens", "input_tokens")
    given = count(usage, "completion_tokens", "output_tokens")
    cached = created = reasoned = 0
    if within := details(usage, "prompt_tokens_details", "input_tokens_details"):
        cached = count(within, "cached_tokens")
        created = count(within, "cache_write_tokens", "cache_creation_tokens")
    if within := details(usage, "completion_tokens_details", "output_tokens_details"):
        reasoned = count(within, "reasoning_tokens")
    if cached + created > taken:
        taken += cached + created
    if reasoned > given or (reasoned and usage.get("total_tokens") == taken + given + reasoned):
        given += reasoned
    return Tokens(taken, cached, created, given, reasoned)
