"""From an example to tokens and which of them count.

Here live chat templates, the search for the answers in what they write, and the masks laid over tokens. Nothing here
reads files or knows how rows were found.
"""
