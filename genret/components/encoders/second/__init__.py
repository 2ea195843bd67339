"""A second space beside the one that search compares in, for a language model that reads by another text tower."""
