"""Constrained decoding: a trie of identifiers and a beam search that can write nothing else."""
