"""The engine's own code for CPUs: C++ sources, and what compiles, loads and calls them.

`studio.train.engine` and `studio.writing` put it in the places of a model's own layers.
"""
