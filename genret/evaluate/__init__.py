"""How good a retriever is, and where it loses images."""
