"""Tokens of one call, and the `usage` object that each of OpenAI's endpoints writes about them."""

from typing import NamedTuple

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
MODERATIONS = "/v1/moderations"
PATHS = (CHAT, EMBEDDINGS, RESPONSES, MODERATIONS)

IMAGE_TOKENS = 85


class Counts(NamedTuple):
    """Tokens of one call: cached is a part of prompt, reasoning is a part of output."""

    prompt: int
    cached: int = 0
    output: int = 0
    reasoning: int = 0


def text_tokens(text: str) -> int:
    """Four bytes of UTF-8 are a token, as a rule of thumb of this simulator's own: the same text, the same number."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return (size + 3) // 4


def usage_of(path: str, counts: Counts) -> dict[str, object] | None:
    """The `usage` object as that endpoint writes it; moderations have none."""
    prompt, cached, output, reasoning = counts
    if path == CHAT:
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
        }
    if path == RESPONSES:
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": prompt + output,
        }
    if path == EMBEDDINGS:
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    return None
