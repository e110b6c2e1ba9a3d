"""The service graph as a picture: looks at the mesh become nodes and edges, a layout, and what is drawn.

Law: pure. The same looks give the same picture; what has a place keeps it as long as nobody comes or goes.
"""
