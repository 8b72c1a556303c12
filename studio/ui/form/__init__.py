"""The form of a run: made from the schema, filled from presets and jobs, with its plan.

Here lives what every tab of a draft shares. What one tab shows alone is in `tabs`.
"""
