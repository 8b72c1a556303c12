"""A job on the disk: its folder, request, state, events, logs and checkpoints.

Here lives how each file of a job is written and read. What is done with jobs is in `actions`, `run` and `views`.
"""
