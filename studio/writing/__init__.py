"""Text written by a model in memory: what transformers' `generate` gives, in less time where a CPU computes.

`quick.generate` is called in place of a model's own `generate`; what it does not know goes to transformers' own loop.
Reading prompts, choosing settings and judging answers belong to those who ask.
"""
