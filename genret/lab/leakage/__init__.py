"""Leakage between splits."""
