"""The web process: the application, who may come in, and how long a connection lasts.

Here live the gate, sign-in, sessions and limits. What is answered is in `routes`, what is shown in `tabs`.
"""
