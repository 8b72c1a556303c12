"""The processes: one supervisor a home, one worker a job, and why a worker ended.

Here lives what starts, watches and ends them. Nothing here knows what a job computes.
"""
