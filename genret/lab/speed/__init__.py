"""Search times."""
