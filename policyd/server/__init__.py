"""Builds the objects of `policyd serve`, wires them, starts and stops them: in `run` those of the control process, in
`decider` those of a decision process, which `deciders` keeps running over their `link`.

Law: what is started here is stopped here, in the opposite order; a server that cannot keep a record does not say that
it is ready.
"""
