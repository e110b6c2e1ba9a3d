"""The agent's resolver: names of the mesh have virtual addresses, everything else is asked of the machine's resolvers.

Law: a packet is hostile until it was read, in either direction; what is asked at a time, and its size, are bounded.
"""
