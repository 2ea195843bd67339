"""Captioned images: data sets, and decoding pictures that may be hostile."""
