"""A server on this machine that answers with what was exported: which one there is, its start, its end.

The web process and `studio serve` use it; nothing here imports torch. What a server is told is in `export.serving`.
"""
