"""What a model is: where it comes from, how large it is, and what training it will take.

`catalogue` finds it, `embedded` makes the one that ships with the studio, `shape` reads its size, `device` and
`plan` say what a run costs. Nothing imported here at the top needs torch; loading for training is `studio.train`.
"""
