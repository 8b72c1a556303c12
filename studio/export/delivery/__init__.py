"""Where what was made and proven is put: a folder or zip file of the person's, or a repository of the Hub.

Everything that can be refused is refused before anything is made (`prepare`); what was made stays in the export's own
folder, whatever becomes of the delivery. `upload` is a process of its own.
"""
