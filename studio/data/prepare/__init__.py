"""From the configuration to token lists: duplicates, limits, joining, findings, batches, and the cache.

Here lives what a run and the plan share, so that what is shown is what is trained on. Trainers and torch are not known
here.
"""
