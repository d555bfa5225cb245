"""One hold: what is reserved for a running job in all scopes that count it, until it is settled or given back."""

from decimal import Decimal

from workers.quota.account import Account


class ChunkHold:
    """A hold of one request in all of `accounts`; see `Hold`."""

    __slots__ = ("_accounts", "_held", "_settled", "keys")

    def __init__(self, accounts: tuple[Account, ...], keys: list[str], tokens: int, usd: Decimal) -> None:
        self._accounts = accounts
        self._held: tuple[int, Decimal] | None = (tokens, usd)
        self._settled: tuple[int, Decimal] | None = None
        self.keys = keys

    def settle(self, tokens: int, usd: Decimal) -> None:
        """Replace the hold by what was used."""
        if self._held is not None:
            held_tokens, held_usd = self._held
            for account in self._accounts:
                account.settle(tokens, usd, held_tokens=held_tokens, held_usd=held_usd)
            self._held, self._settled = None, (tokens, usd)

    def release(self) -> None:
        """Give the hold back, unless it was settled."""
        if self._held is not None:
            for account in self._accounts:
                account.untake(*self._held)
            self._held = None

    def revoke(self) -> None:
        """Give back the hold, or what was settled."""
        self.release()
        if self._settled is not None:
            for account in self._accounts:
                account.unsettle(*self._settled)
            self._settled = None

    def __enter__(self) -> "ChunkHold":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class FreeHold:
    """The hold of a job to which no limit applies."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: list[str] = []

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
