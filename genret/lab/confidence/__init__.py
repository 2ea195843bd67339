"""How sure a search is."""
