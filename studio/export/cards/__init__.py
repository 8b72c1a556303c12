"""The parts of a model card: front matter, data, settings, curves, scores, license.

Each part reads what the run recorded and writes Markdown or YAML in which the names of others stay names. No rows, no
folders of this machine: a card is made to be shown to strangers. `export.card` puts the parts together.
"""
