"""From the configuration to token lists: limits, duplicates, joining, batches, and the cache of it all.

Here lives what a run and the plan share, so that what is shown is what is trained on. Trainers and torch are not known
here.
"""
