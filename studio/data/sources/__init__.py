"""Where the rows of a run come from: each source of the configuration located, read, mixed and streamed.

Here lives what follows `data.train`: paths, sets of the Hub, entries of dataset_info.json. It reads through `files`
and understands rows through `formats`; it never tokenizes.
"""
