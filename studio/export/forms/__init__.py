"""Other forms of what was made: a GGUF in several files, a checkpoint in 4 bits. Each is a step of its own."""
