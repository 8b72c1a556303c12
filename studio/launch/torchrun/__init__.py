"""A run on several machines that a person starts, and that share STUDIO_HOME.

The job is that of any run of this machine, the first one, whose process waits for the others before it computes.
"""
