"""Which models there are and how they come here: the embedded one, folders, the Hub.

Here lives what resolves a name and fetches or makes what is missing. What a checkpoint holds is read in `inspect`.
"""
