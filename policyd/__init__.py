"""policyd: a service mesh whose heart is a policy engine.

Rooms and floors: docs/concepts/house.md. No module of this package does work when it is imported.
"""

__version__ = "0.1.0"
