"""Whether a GGUF answers like the trained model: what both are asked, what they say, what may differ.

Here live the reference, the comparison, its limits and the causes of a difference. Nothing here writes a GGUF.
"""
