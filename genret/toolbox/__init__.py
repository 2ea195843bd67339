"""What components are built with and the core does not need: saving, weights by name, splits, learned codes, tables."""
