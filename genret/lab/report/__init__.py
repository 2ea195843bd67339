"""`genret report`: a run's results as one standalone HTML page."""
