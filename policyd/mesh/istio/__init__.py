"""Istio's kinds and the core's Service as strict models, a module a kind, field by field.

Law: what a model accepts is honoured by the resources made from it; every other field is refused by name.
Reference: https://istio.io/latest/docs/reference/config/networking/ (the parts supported now).
"""
