"""From a checkpoint to GGUF files: merge, convert, quantise, and what llama.cpp will not do.

Here lives all that knows the converter and its names, the rehearsal before a training included. Whether a file
answers like the model is found in `proof`.
"""
