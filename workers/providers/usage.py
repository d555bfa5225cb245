"""Reading the token counts that a provider reports into the five of the ledger."""

from workers.providers.protocol import Tokens

MOST_TOKENS = 1_000_000_000
"""No call uses that many; a larger count is a mistake, and mistakes are not billed."""

INPUT = ("prompt_tokens", "input_tokens")
OUTPUT = ("completion_tokens", "output_tokens")
INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
CACHE_READ = ("cached_tokens",)
CACHE_CREATION = ("cache_write_tokens", "cache_creation_tokens")
REASONING = ("reasoning_tokens",)


class UsageMalformed(ValueError):  # noqa: N818 - says what was found
    """A count is negative, no integer, or absurd."""


def count(counts: dict[str, object], names: tuple[str, ...]) -> int:
    """The first of the named counts that is there; 0 where none is."""
    for name in names:
        value = counts.get(name)
        if value is None:
            continue
        if type(value) is not int or not 0 <= value <= MOST_TOKENS:
            raise UsageMalformed(f"its usage has a {name} that is no count")
        return value
    return 0


def details(usage: dict[str, object], names: tuple[str, ...]) -> dict[str, object] | None:
    """The first of the named objects that is there."""
    for name in names:
        value = usage.get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            raise UsageMalformed(f"its usage has {name} that are no object")
    return None


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
    taken, given = count(usage, INPUT), count(usage, OUTPUT)
    cached = created = reasoned = 0
    if within := details(usage, INPUT_DETAILS):
        cached, created = count(within, CACHE_READ), count(within, CACHE_CREATION)
    if within := details(usage, OUTPUT_DETAILS):
        reasoned = count(within, REASONING)
    if cached + created > taken:
        taken += cached + created
    if reasoned > given or (reasoned and usage.get("total_tokens") == taken + given + reasoned):
        given += reasoned
    return Tokens(taken, cached, created, given, reasoned)
