"""`genret report`: what a run found, lost and learnt, as one page that needs nothing else."""
