"""The page of `genret serve`: templates, one style sheet and one script, rendered on the server."""
