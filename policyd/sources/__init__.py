"""Where declared things come from: a folder of files, watched.

Law: what cannot be read is an error with its file, never an empty declaration.
"""
