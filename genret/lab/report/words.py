"""Summarizes a run and its results in sentences."""

from __future__ import annotations

import re
from typing import Any

from genret.kit.text import clean
from genret.lab.compare.run_summary import name_of
from genret.lab.report.figures import Figures, K
from genret.lab.report.queries import TracedQuery
from genret.lab.report.stored import StoredRun
from genret.lab.report.text import listed, p_value, percent, plural, points

PROTOCOLS = {
    "inductive": "inductive: training knew nothing of the searched pictures",
    "transductive-index": "transductive-index: the searched pictures' pixels, but no words about them, could train the "
    "tokenizer",
    "transductive-pseudo": "transductive-pseudo: the searched pictures' pixels and made-up captions of them were "
    "trained on; their true captions were not",
}
CONCEPTS = {
    "seen-concepts": "the wordings of queries occur in training, with other pictures",
    "unseen-concepts": "the wordings of queries do not occur in training",
}
STAGES = {
    "dense": "found by the two-tower search",
    "quantization": "no longer told apart by what the identifiers say",
    "level 1": "level by level: the model preferred other symbols there",
    "beam": "pruned on the way: a wider beam would have found them",
    "collision": "crowded out by pictures of the same identifier",
    "recovered": "gained: the identifiers' ceiling misses them, the model finds them",
    "reached": "reached by the model",
    "rerank": "changed by the reranker",
    "final": "",
}


def system_of(stored: StoredRun) -> str:
    """A language model that writes rq identifiers; a two-tower search."""
    recipe = stored.recipe
    if not recipe.has_identifiers or recipe.identifier is None or recipe.backbone is None:
        how = f"the retriever {recipe.retriever.type}"
        if (index := getattr(recipe.retriever.options, "index", None)) is not None:  # of two-tower
            by = "exactly" if index == "exact" else f"by an index ({index})"
            how = f"the two-tower search, which compares the vectors of words and pictures {by}"
    else:
        model, scheme = recipe.backbone.type, recipe.identifier.type
        part = f"the first {plural(recipe.written_levels, 'symbol')} of " if recipe.written_levels else ""
        how = f"a language model ({model}) that writes {part}the pictures' identifiers ({scheme})"
        if stored.num_beams:
            how += f", {plural(stored.num_beams, 'beam')} wide"
        if recipe.guidance:
            how += f", with the query's own vector added to the beams' scores (guidance {recipe.guidance:g})"
        if recipe.self_guidance:
            how += f", and the distance to what it reads itself (self-guidance {recipe.self_guidance:g})"
    return how + (f", and a reranker after it ({recipe.rerank.type})" if recipe.rerank is not None else "")


def facts_of(stored: StoredRun) -> list[tuple[str, str]]:
    """The context that every figure needs."""
    recipe, evaluation = stored.recipe, stored.evaluation or {}
    facts = [
        ("data", name_of(recipe.dataset)),
        ("split", f"{stored.searched_split}" + (f" (“{evaluation['split']}”)" if _renamed(stored) else "")),
        ("protocol", PROTOCOLS.get(recipe.protocol, recipe.protocol)),
        ("encoder", name_of(recipe.encoder)),
        ("identifier", name_of(recipe.identifier) if recipe.has_identifiers else "none"),
        ("beams", str(stored.num_beams or "none")),
        ("seed", str(recipe.train.seed)),
    ]
    if recipe.guidance:
        facts.insert(-1, ("guidance", f"{recipe.guidance:g}"))
    if recipe.self_guidance:
        facts.insert(-1, ("self-guidance", f"{recipe.self_guidance:g}"))
    if recipe.written_levels:
        facts.insert(-1, ("levels written", str(recipe.written_levels)))
    if evaluation.get("concepts"):
        facts.insert(3, ("concepts", CONCEPTS.get(evaluation["concepts"], evaluation["concepts"])))
    return facts


def _renamed(stored: StoredRun) -> bool:
    return bool(stored.evaluation) and stored.evaluation["split"] != stored.searched_split  # type: ignore[index]


def summary_of(stored: StoredRun, figures: Figures) -> list[str]:
    """A few sentences: what was searched and how, the results, the baseline, and the largest loss."""
    evaluation = stored.evaluation
    if evaluation is None:
        return [
            f"This run searches by {system_of(stored)}.",
            "The searched pictures have no captions to search by, so nothing was measured.",
        ]
    said = [
        f"{plural(evaluation['num_images'], 'picture')} of {name_of(stored.recipe.dataset)} were searched by "
        f"{plural(evaluation['num_queries'], 'caption')}, with {system_of(stored)}."
    ]
    recall, dense = evaluation["recall"], evaluation["two_tower"]
    if evaluation.get("remark"):
        said.append(_sentence(evaluation["remark"]))
    if recall["1"] is not None:
        found = f"The right picture comes first for {percent(recall['1'])} % of the queries"
        if recall[str(K)] is not None:
            found += f" and is among the first {K} for {percent(recall[str(K)])} %"
        said.append(found + ".")
    if figures.difference is not None or recall != dense:
        said += _against(evaluation, figures)
    if evaluation.get("ledger"):
        said += _losses(evaluation["ledger"])
    return said


def _against(evaluation: dict[str, Any], figures: Figures) -> list[str]:
    recall, dense, ceiling = evaluation["recall"], evaluation["two_tower"], evaluation.get("ceiling")
    at = str(K)
    said = f"The two-tower search with the same encoder has {percent(dense['1'])} % and {percent(dense[at])} %"
    if recall[at] is not None and dense[at]:
        said += f", so this run reaches {100 * recall[at] / dense[at]:.0f} % of its R@{K}"
    if (one := figures.difference) is not None:
        low, high = (points(bound) for bound in one.interval)
        said += f" (a difference of {points(one.points)} points, 95 % interval {low} to {high}; {p_value(one.p)})"
    sentences = [said + "."]
    if ceiling is not None and recall[at] is not None and ceiling[at]:
        share = 100 * recall[at] / ceiling[at]
        sentences.append(
            f"What the identifiers still say of the pictures, the ceiling, would allow {percent(ceiling['1'])} % and "
            f"{percent(ceiling[at])} %; the run reaches {share:.0f} % of that R@{K}."
        )
    if evaluation.get("reranked") is not None and evaluation["reranked"][at] is not None:
        sentences.append(
            f"The pictures that its beams find, put into the order of the two-tower search, give "
            f"{percent(evaluation['reranked']['1'])} % and {percent(evaluation['reranked'][at])} %."
        )
    return sentences


def _losses(ledger: list[dict[str, Any]]) -> list[str]:
    lost = sorted((row for row in ledger if row.get("lost", 0) > 0), key=lambda row: -row["lost"])[:2]
    if not lost:
        return []
    parts = [f"{stage_name(row['stage'])} ({row['lost']:.1f} points)" for row in lost]
    return [f"Of the two-tower search's R@{K}, most is lost to {listed(parts)}."]


def stage_name(stage: str) -> str:
    """A ledger row as a label."""
    number = stage.removeprefix("level ")
    if number != stage:
        return f"level {number} of the identifier"
    return {"beam": "the beam", "collision": "collisions", "rerank": "reranking"}.get(stage, stage)


def stage_meaning(stage: str, reranks: bool) -> str:
    """What a ledger row counts; for the levels, only the first is explained."""
    if stage == "rerank" and not reranks:
        return "changed by putting the found pictures into the order of the two-tower search"
    return STAGES.get(stage, "")


def where_lost(traced: TracedQuery) -> str:
    """The outcome of one query, in a sentence."""
    if traced.lost_at is None:
        said = f"Found in place {traced.rank}"
        if traced.dense_rank is not None:
            said += f"; the two-tower search has it in place {traced.dense_rank:,}"
        return said + "."
    found = "not found at all" if traced.rank is None else f"only in place {traced.rank:,}"
    if traced.lost_at == "dense":
        return f"The encoder itself places it {traced.dense_rank:,}th: {found}." if traced.dense_rank else f"{found}."
    dense = f"The two-tower search has it in place {traced.dense_rank:,}" if traced.dense_rank else ""
    why = {
        "quantization": f"by what its identifier still says it would be in place {traced.ceiling_rank:,}"
        if traced.ceiling_rank
        else "its identifier no longer tells it apart",
        "beam": "its identifier scores well enough, but was pruned on the way: a wider beam would have found it",
        "collision": "its identifier was found, but other pictures of the same identifier come first",
        "rerank": "the beams found it, the reranker put others first",
        "search": "the index or the reranker lost it",
    }.get(traced.lost_at, f"the model preferred other symbols at {traced.lost_at}")
    return f"{dense}, here it is {found}: {why}."


def left_beam(traced: TracedQuery) -> str | None:
    """The level at which the positive prefix left the beam; None if not applicable."""
    if not traced.prefix_ranks:
        return None
    gone = next((level for level, rank in enumerate(traced.prefix_ranks, 1) if rank is None), None)
    if gone is None:
        return "Its identifier stayed in the beam to the end."
    return f"Its identifier left the beam at level {gone} of {len(traced.prefix_ranks)}."


def machine_of(stored: StoredRun) -> list[tuple[str, str]]:
    """The provenance of a run, as far as stored."""
    made = stored.environment
    plain = ("platform", "processor", "cores", "threads", "device", "python", "seed", "git_commit")
    facts = [(key.replace("_", " "), str(made[key])) for key in plain if made.get(key) is not None]
    if made.get("peak_memory_mb"):
        facts.append(("peak memory", f"{made['peak_memory_mb']:,} MB"))
    for key, joined in (("packages", "{} {}"), ("plugins", "{} ({})"), ("components", "{} ({})")):
        if made.get(key):
            facts.append((key, ", ".join(joined.format(name, what) for name, what in made[key].items())))
    if stored.seconds:
        facts.append(("seconds", ", ".join(f"{stage} {seconds:,.0f}" for stage, seconds in stored.seconds.items())))
    return facts


def _sentence(text: str) -> str:
    text = clean(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def highlighted(text: str, common: set[str]) -> list[tuple[str, bool]]:
    """A caption in pieces; True for shared words."""
    pieces = ((piece, piece.lower().strip(".,:;!?()\"'") in common) for piece in re.split(r"(\s+)", clean(text)))
    return [(piece, shared) for piece, shared in pieces if piece]
