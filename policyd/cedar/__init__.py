"""The language: schemas, policy sets, their syntax trees, and the engine that decides.

Law: this room knows Cedar and nothing of HTTP, Envoy or the mesh. Values come in, values go out.
"""
