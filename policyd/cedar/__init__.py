"""The language: schemas, policy sets, their syntax trees, and the engine that decides.

Law: this room knows Cedar and what our schemas call things, and nothing of Envoy or of one mesh. Values come in,
values go out.
"""
