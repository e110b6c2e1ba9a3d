"""Identities: evidence is attested, policy decides, the authority signs, and checks what it signed.

Law: a name comes from a registration, never from the request; of a CSR only the key counts.
"""
