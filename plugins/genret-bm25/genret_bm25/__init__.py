"""BM25 over borrowed captions for genret. Imports nothing heavy: the target is loaded when a recipe names it."""

import genret


@genret.hookimpl
def register_retrievers(register):
    register("bm25", "genret_bm25.retriever:BM25Retriever")
