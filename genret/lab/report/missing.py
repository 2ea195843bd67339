"""Explains in a sentence why a section of a report is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genret.lab.report.sections import RunSections

DENSE = {
    "curves": "there are no beams to widen",
    "ledger": "there is nothing to lose between vectors and identifiers",
    "levels": "it has no identifiers",
    "pairs": "there are no vokens to look at",
}
"""For dense runs."""
GENERATED = {
    "curves": "No beam width was measured.",
    "ledger": "There is no ledger: nothing could be measured.",
    "levels": "The identifiers are words of the language model's own vocabulary: there are no codebooks to judge.",
    "pairs": "The identifiers are texts, or there are none: there are no vokens to look at.",
}


def missing_of(found: RunSections, has_codes: bool) -> dict[str, str]:
    """By section. `has_codes`: whether identifiers consist of codes."""
    stored = found.stored
    absent = {name for name in DENSE if not getattr(found, name)}
    if not stored.recipe.has_identifiers:
        missing = {name: f"This run finds pictures by their vectors, so {DENSE[name]}." for name in absent}
    else:
        missing = {name: GENERATED[name] for name in absent}
        if "pairs" in missing and not stored.has_catalog:
            missing["pairs"] = "The catalog was not kept, so there are no identifiers to look at."
        elif "pairs" in missing and has_codes:
            missing["pairs"] = "There are not two different pictures to compare."
    if not found.queries:
        missing["queries"] = "No query was followed through a search" + (": see above." if found.remarks else ".")
    if not found.learning:
        missing["learning"] = "Nothing was trained for this run alone: all its stages were made before, and reused."
    return missing
