"""The commands that do a person's work: train, data, evaluate, export, chat, demo.

Here lives how they are asked for and what they print. The work is done by the services.
"""
