"""Templates that others wrote, rendered in a process that may be ended, within bounds of time and room.

Here live that process, its side in ours, and the bounds that tokenizing has too. What is rendered, and what is made of
it, is known in the rooms that ask.
"""
