"""YAML and overrides → a validated, frozen recipe, and the components that it names."""
