"""`studio jobs`: the verbs for jobs, one module a group of them.

Here lives what lists, moves, branches, keeps and watches jobs in a terminal. What starts one is in `work`.
"""
