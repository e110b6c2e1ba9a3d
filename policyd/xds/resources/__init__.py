"""A Mesh becomes Envoy's resources, as dictionaries in Envoy's own JSON form.

Law: pure functions of the Mesh; a file a resource type.
"""
