"""Constrained decoding: a trie of identifiers and a beam search that writes only these."""
