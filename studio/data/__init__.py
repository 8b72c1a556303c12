"""From files to tokens: rows are read, understood, rendered, masked and counted.

`sources` and `formats` are light (the page may import them); `masks` and `prepare` need a tokenizer object and
run in job processes; `client` starts `worker`, the warm process that tokenizes for the page.
"""
