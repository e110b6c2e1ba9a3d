"""The authority's desk: what the owner of the folder may ask of it, over the administration socket.

Law: whoever reaches the socket is the owner, because nobody else can enter its folder; policies decide what is issued
even so, and every answer that gives somebody an identity is on record first.
"""
