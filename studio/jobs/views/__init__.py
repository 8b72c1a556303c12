"""What is shown of jobs: the list, summaries, comparison, disk use.

Here lives what reads job folders for others. Nothing here changes a job.
"""
