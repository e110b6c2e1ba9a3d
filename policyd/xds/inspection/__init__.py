"""What proxies hold, as their own Envoys say: asked for through agents, read, and compared with what they were sent.

Law: all of it comes from the network: sizes, times and shapes are bounded, and nothing that is shown is believed.
"""
