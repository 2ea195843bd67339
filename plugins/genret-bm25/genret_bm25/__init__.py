"""BM25 over borrowed captions for genret. The retriever is imported when a recipe names it."""

import genret


@genret.hookimpl
def register_retrievers(register):
    register("bm25", "genret_bm25.retriever:BM25Retriever")
