"""Captioned images: data sets, and decoding images that may be hostile."""
