"""What a row means: its format, its columns, its conversation or preference.

Here lives what makes an example of a dictionary, or says which field is wrong; lines over columns are rendered by
`sandbox`. No file is opened here, and no tokenizer or chat template is known.
"""
