"""Configs of other tools, in and out: LLaMA-Factory and whoever else `tools.py` lists.

Reading a file or a command line gives a run in the shape of our YAML and one line for each of their keys: mapped,
approximated, ignored, refused or unknown, and why. Nothing of theirs is left out silently. No model and no row is read
here, and nothing is run: a command line is only taken apart.
"""
