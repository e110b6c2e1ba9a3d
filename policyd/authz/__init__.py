"""One request: a check of Envoy's becomes a query, the engine's decision becomes a reply.

Law: who asks is the certificate of the check's connection and the listener that our own xDS named, never
anything that the message or the caller's request says of itself.
"""
