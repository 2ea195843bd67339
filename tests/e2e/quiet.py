"""Progress that nobody watches."""

from __future__ import annotations


class Quiet:
    def progress(self, label: str, total: int | None = None) -> Quiet:
        return self

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self, n: int = 1) -> None:
        pass
