"""What a person does with jobs: submit, wait, queue, branch, sweep, remove.

Here lives what page, command line and scripts call. The processes are in `run`.
"""
