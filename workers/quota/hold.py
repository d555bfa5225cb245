"""One hold: what is reserved for a running job, until it is settled or given back."""

from decimal import Decimal

from workers.quota.account import Account


class ChunkHold:
    """A hold of one request; see `Hold`."""

    __slots__ = ("_account", "_held", "_settled", "day")

    def __init__(self, account: Account, day: str, tokens: int, usd: Decimal) -> None:
        self._account = account
        self._held: tuple[int, Decimal] | None = (tokens, usd)
        self._settled: tuple[int, Decimal] | None = None
        self.day = day

    def settle(self, tokens: int, usd: Decimal) -> None:
        """Replace the hold by what was used."""
        if self._held is not None:
            held_tokens, held_usd = self._held
            self._account.move(0, tokens - held_tokens, usd - held_usd)
            self._account.holds -= 1
            self._held, self._settled = None, (tokens, usd)

    def release(self) -> None:
        """Give the hold back, unless it was settled."""
        if self._held is not None:
            tokens, usd = self._held
            self._account.move(-1, -tokens, -usd)
            self._account.holds -= 1
            self._held = None

    def revoke(self) -> None:
        """Give back the hold, or what was settled."""
        self.release()
        if self._settled is not None:
            tokens, usd = self._settled
            self._account.move(-1, -tokens, -usd)
            self._settled = None

    def __enter__(self) -> "ChunkHold":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class FreeHold:
    """The hold of a tenant without a limit."""

    __slots__ = ("day",)

    def __init__(self, day: str) -> None:
        self.day = day

    def settle(self, tokens: int, usd: Decimal) -> None:
        """Nothing is counted."""

    def release(self) -> None:
        """Nothing was taken."""

    def revoke(self) -> None:
        """Nothing was counted."""

    def __enter__(self) -> "FreeHold":
        return self

    def __exit__(self, *_: object) -> None:
        pass
