"""Exports that end in another program: a server, Ollama, LM Studio.

Each is one of the makings beside this folder, with what that program needs written behind it, and run where the program
is here. What is known of the programs' own languages and flags lies in `studio.export.serving`.
"""
