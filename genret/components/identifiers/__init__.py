"""Schemes that give every image a sequence of symbols."""
