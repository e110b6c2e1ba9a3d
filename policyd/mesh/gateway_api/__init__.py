"""Kubernetes' Gateway API on files: its kinds as strict models, and what they come to in this mesh.

Law: a resource becomes the Gateways, VirtualServices and DestinationRules that say the same, so that nothing further on
knows the difference; what cannot be attached gets a condition with the specification's reason, and is never half there.
Reference: https://gateway-api.sigs.k8s.io/reference/spec/
"""
