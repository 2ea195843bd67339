"""Rerankers: new scores for the candidates of the first stage."""
