"""What a model is, read from its files without loading it.

Here live config.json, headers, tokenizer files, families, adapters, and what llama.cpp will say of them. Nothing here
downloads, and nothing imports torch.
"""
