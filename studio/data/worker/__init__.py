"""The data worker: processes that read, render and tokenize for the page and the commands.

Here live the process, its pool, its client and what it can be asked. What is computed lives in the other rooms, none
of which imports from here.
"""
