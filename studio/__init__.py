"""Finetune Studio: from a model and some examples to a proven GGUF file.

Read top-down: `config` (what is asked), `data` (from files to tokens), `models` (what a model is),
`train`/`evaluate`/`export`/`chat` (the work), `jobs` (the spine that runs it), `cli` and `ui` (the faces).
"""

__version__ = "0.1.0"
