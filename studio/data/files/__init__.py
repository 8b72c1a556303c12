"""Data files: which ones a path names, what their bytes are, and where each row lies.

Here lives what knows of bytes, formats of files and the Hub's sets; what a row means is in `formats`. Nothing here
tokenizes or knows a method.
"""
