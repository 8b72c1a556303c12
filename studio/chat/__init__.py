"""Talk to a model: one OpenAI-compatible server process for each loaded model, and those who use it.

`server` and its helpers (`engine`, `hf`, `gguf`) are the process; `manager`, `client`, `ask` are light and start it.
Nothing of torch, transformers or llama.cpp is imported outside that process.
"""
