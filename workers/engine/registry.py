"""Which job ids this process has in its hands, or may have: what the audit must not take up."""

from collections.abc import Iterable


class Registry:
    """Ids that are registered before an insert, a take or an adoption is sent, and unregistered when its outcome is known or given up."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, job: object) -> bool:
        return job in self._ids

    def add(self, ids: Iterable[str]) -> list[str]:
        """Register ids; return those that were new: only they are the caller's to use."""
        new = [job for job in dict.fromkeys(ids) if job not in self._ids]
        self._ids.update(new)
        return new

    def add_one(self, job: str) -> bool:
        """Register an id; whether it was new, and so the caller's to use."""
        if job in self._ids:
            return False
        self._ids.add(job)
        return True

    def discard(self, ids: Iterable[str]) -> None:
        """Unregister ids."""
        self._ids.difference_update(ids)
