"""Importance matrices: how strongly the inputs of each weight matrix are used on the run's own training rows.

llama.cpp computes the rows and its quantizer weighs rounding errors by the result; here are the rows (`sample`), the
sums (`activations`), their file (`matrixfile`), and the step that makes one of the other (`make`).
"""
