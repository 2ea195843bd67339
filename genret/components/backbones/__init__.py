"""Language models whose vocabulary holds the identifiers' symbols."""
