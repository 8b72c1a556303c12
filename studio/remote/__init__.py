"""Fine-tuning jobs at OpenAI, or at a service of the same API: checked, paid knowingly, sent once, followed.

Here lives what knows that API; only `client` talks to it, through the official package. A job of it is a folder like
any other. Nothing here needs torch, and the key is read where it is used and written nowhere.
"""
