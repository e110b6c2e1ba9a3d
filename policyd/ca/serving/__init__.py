"""The certificate services on the wire: joining for who has no identity yet, the rest for agents that have one.

Law: the caller is the certificate of the connection, nothing in a message. What goes wrong becomes a status whose
text gives nothing away: neither why a token failed, nor what policies say, nor anything of the inside.
"""
