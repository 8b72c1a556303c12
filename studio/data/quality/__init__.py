"""What is worth knowing of data, and the cleaned copy of it: profile, secrets, keep, push.

Here lives what judges rows that can be read; what cannot be read is an error where it is read. Nothing here changes a
person's files.
"""
