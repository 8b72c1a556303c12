"""What a row means: its format, its columns, its conversation or preference.

Here lives what makes an example of a dictionary, or says which field is wrong. No file is opened here and no template
rendered.
"""
