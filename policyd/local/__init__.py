"""Deciding in the proxy: policies compiled to Envoy's own RBAC filter, for one listener at a time.

Law: what is compiled answers as policyd does, of every request; what is not proven to do so is not compiled.
"""
