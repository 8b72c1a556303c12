"""The data worker: processes that read, render and tokenize for the page and the commands.

Here live the process, its pool, its client and the sandbox for templates of strangers. What is computed lives in the
other rooms; only the passing of questions and answers is here.
"""
