"""Transparent capture: what an application sends and gets passes its sidecar, though it knows of none (Linux).

Law: a plan is a value, and what follows from it text; only `kernel` touches the machine, and all of a plan or nothing
of it is in force.
"""
