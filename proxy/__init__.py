"""The agent: it owns Envoys and the identities of the workloads beside them.

Law: keys are made here and never leave; of policyd it imports floor 0 and the pure xDS stream, nothing else.
"""
