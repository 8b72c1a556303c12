"""Data larger than memory: rows are read from disk and become tokens when the training comes to them.

`wanted` decides, `shards` indexes each file once, `store` keeps tokens on disk, `rows` is what a trainer indexes,
`preparing` puts a run together, `sample` looks at a few rows for a plan. The rest is the data's other rooms.
"""
