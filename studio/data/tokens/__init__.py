"""Tokenizers: found, loaded, and called with an end.

Here lives what calls a tokenizer on plain text. What is done with the ids is in `masks` and `prepare`.
"""
