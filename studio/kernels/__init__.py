"""The engine's own code for CPUs: C++ sources, and what compiles, loads and calls them.

Nothing here knows of models; `studio.train.engine` puts it in their places.
"""
