"""Scores candidates anew."""
