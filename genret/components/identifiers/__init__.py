"""Schemes that assign an identifier to every image."""
