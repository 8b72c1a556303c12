"""Runs that go to other machines, and progress that is watched from afar.

`ssh` holds what starts a run on a machine that is reached by ssh and brings its job folder back. Here live the files
for schedulers that start it themselves, and the reading of a job folder wherever it lies. Nothing here trains.
"""
