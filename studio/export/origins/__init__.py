"""Where an exported model comes from: a run of the studio, or a model that no run made.

A source (`export.source`) says which files are exported; its origin says what they are: what a report and a card tell
of them, which rows they are compared on, and how sentences call them.
"""
