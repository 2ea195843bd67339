"""Words that a person or a program asks with."""

from __future__ import annotations

from genret.errors import UsageError


def query_words(query: str, what: str) -> str:
    """Words that can be searched for; `UsageError` if there are none."""
    # a command line may hold bytes that are no text; they must not break the answer's encoding
    query = query.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not query.strip():
        raise UsageError(f"{what} is empty; say in words what the picture shows")
    return query
