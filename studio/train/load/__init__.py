"""From a checkpoint and a plan to the model that is trained, and the frozen one beside it.

Here lives loading, whole or quantised, with its adapter. Nothing here trains.
"""
