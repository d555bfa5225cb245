"""How many tokens a text has: counted by tiktoken where a number is needed, else estimated from its bytes by a ratio that is learned.

The tables are package data (`broker/data/tiktoken`), checked against their SHA-256 and never downloaded.
"""

import asyncio
import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

from tiktoken import Encoding
from tiktoken.model import encoding_name_for_model

PIECE_BYTES = 8_192
"""tiktoken panics or slows down on longer stretches of one kind of character."""
THREAD_CHARACTERS = 32_768
"""Above this a thread costs less than the loop's standstill."""
A_MESSAGE = 4
"""Tokens that a chat's message has around its text."""
DEFAULT_RATIO = 0.25
"""Tokens a byte, before anything was learned."""

_PRIOR_BYTES = 4_096.0
_MEMORY_BYTES = 4_194_304.0
_MOST_RATIOS = 50_000


@dataclass(frozen=True, slots=True)
class Table:
    """One of tiktoken's tables: its file's name (what TIKTOKEN_CACHE_DIR expects), its checksum and how it splits text."""

    file: str
    sha256: str
    pattern: str


CL100K = Table(
    file="9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    pattern=r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
)
O200K = Table(
    file="fb374d419588a4632f3f557e76b4b70aebbca790",
    sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    pattern=(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)


@lru_cache(maxsize=1_024)
def table_of(model: str) -> Table:
    """The table for a model: its own where it is public, else the newest, whose counts are an estimate then."""
    try:
        return CL100K if encoding_name_for_model(model) == "cl100k_base" else O200K
    except KeyError:
        return O200K


@cache
def _encoding(table: Table) -> Encoding:
    """Build the encoding from the shipped table, once a process (half a second and 60 MB)."""
    content = files("broker").joinpath("data", "tiktoken", table.file).read_bytes()
    if hashlib.sha256(content).hexdigest() != table.sha256:
        raise ValueError(
            f"broker/data/tiktoken/{table.file} is damaged: its SHA-256 is not {table.sha256}; install aibroker again"
        )
    ranks: dict[bytes, int] = {}
    for line in content.splitlines():
        token, _, rank = line.partition(b" ")
        ranks[base64.b64decode(token)] = int(rank)
    return Encoding(table.file, pat_str=table.pattern, mergeable_ranks=ranks, special_tokens={})


def count(text: str, model: str) -> int:
    """Count the tokens of a text, special tokens taken as plain text.

    Exact up to 8 kB for models with a public table; a longer text is counted in pieces, which may add a token a piece. Takes 38 us a kB: use
    `count_long` for texts that may be long, in a loop that others share.
    """
    encoding = _encoding(table_of(model))
    return sum(_count_piece(encoding, piece) for piece in _pieces(text))


def count_input(body: Mapping[str, object], texts: Iterable[str], model: str) -> int:
    """Count what a body asks in these texts of it, with what a chat's messages have around them."""
    messages = body.get("messages")
    around = A_MESSAGE * len(messages) if isinstance(messages, list) else 0
    return around + sum(count(text, model) for text in texts)


async def count_long(text: str, model: str) -> int:
    """Count like `count`, in a thread where the text is above 32 kB."""
    if len(text) <= THREAD_CHARACTERS:
        return count(text, model)
    return await asyncio.to_thread(count, text, model)


def _pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces of at most 8 kB of UTF-8, before a space where there is one near."""
    size = PIECE_BYTES if text.isascii() else PIECE_BYTES // 4
    start = 0
    while len(text) - start > size:
        end = start + size
        space = text.rfind(" ", end - size // 8, end)
        end = space if space > start else end
        yield text[start:end]
        start = end
    yield text[start:]


def _count_piece(encoding: Encoding, piece: str) -> int:
    try:
        return len(encoding.encode_ordinary(piece))
    except BaseException as error:  # tiktoken's panic is no Exception, and has no name that can be imported
        if type(error).__name__ != "PanicException":
            raise
        return round(len(piece.encode("utf-8", "surrogatepass")) * DEFAULT_RATIO)


class Ratios:
    """Tokens a byte, learned per (model, tenant) from what providers report; newer reports weigh more.

    Who is not known begins with the model's ratio, an unknown model with a quarter of a token a byte.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}  # (bytes, tokens), the newest entries last

    def estimate(self, model: str, tenant: str, size: int) -> int:
        """Estimate the tokens of `size` bytes."""
        return round(size * self.ratio(model, tenant))

    def ratio(self, model: str, tenant: str) -> float:
        """Tokens a byte, as far as is known."""
        seen = self._seen.get((model, tenant)) or self._seen.get((model, ""))
        return seen[1] / seen[0] if seen else DEFAULT_RATIO

    def learn(self, model: str, tenant: str, size: int, tokens: int) -> None:
        """Remember that `size` bytes were `tokens` tokens."""
        if size <= 0 or tokens <= 0:
            return
        for key in ((model, ""), (model, tenant)):
            ratio = self.ratio(*key)
            known, counted = self._seen.get(key) or (_PRIOR_BYTES, _PRIOR_BYTES * ratio)
            known, counted = known + size, counted + tokens
            if known > _MEMORY_BYTES:
                known, counted = known / 2, counted / 2
            if key not in self._seen and len(self._seen) >= _MOST_RATIOS:
                del self._seen[next(iter(self._seen))]
            self._seen[key] = known, counted
