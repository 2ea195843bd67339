"""Language models whose vocabulary is extended by the identifiers' vokens."""
