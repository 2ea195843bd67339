"""One command that proves and measures genret on a GPU: `python -m bench.gpu`. See docs/performance.md."""
