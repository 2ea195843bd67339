"""How genret is extended: hooks, registries, loading."""
