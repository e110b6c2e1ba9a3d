"""A folder becomes a checked Live: all that decisions, certificates and proxies depend on, or all its problems.

Law: everything is checked together; nothing of a folder that has a problem is ever in force.
"""
