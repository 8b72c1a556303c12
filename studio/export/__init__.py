"""From a trained run to GGUF files, or one checkpoint, that are proven to answer like it.

Read `job` for the order of work. Each heavy step (`merge`, `convert`, `quantize`, `reference`, `verify`, `rows`) is
a process of its own, started through `steps`: a crash of llama.cpp is then a sentence, a stop is immediate, torch
and llama.cpp are never in memory together, and the peak of each step is known exactly.
"""
