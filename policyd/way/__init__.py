"""The way of one request through the mesh: what each proxy on it does, and what policies say where they are asked.

Law: proxies are read, never rebuilt: what is told follows from the very resources that they are sent, and each decision
is the one that the service would make of that request there.
"""
