"""The processes of a merge: what loads models, each started as `studio.export.steps` starts its own.

`running` is the only one that knows mergekit, which is LGPL and stays outside of all others. Neither the page nor the
command line nor the job imports anything here: they name a module and read its answer.
"""
