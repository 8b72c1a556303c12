"""The page's own routes: plain JSON for our scripts.

Here lives what turns a request into a call of a service and its answer into JSON. No gradio component is made here.
"""
