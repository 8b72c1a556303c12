"""Rows from each kind of file: one module a family (JSON, tables of text, plain text, Parquet and Arrow).

`kinds` says what a file is and `bytestream` unpacks it. Every reader streams: memory is bounded by the largest row,
never by the file. What a row means is not known here (`data.formats.rows`).
"""
