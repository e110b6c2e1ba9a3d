"""What proxies are told: a Mesh becomes checked snapshots, and streams bring them to Envoys.

Law: a snapshot is immutable and holds no reference to nothing; the stream is a pure state machine.
"""
