"""Builds the objects of `policyd serve`, wires them, starts and stops them. Decides nothing.

Law: what is started here is stopped here, in the opposite order; a server that cannot keep a record does not say that
it is ready.
"""
