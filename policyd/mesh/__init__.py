"""What operators declare: resources (Istio's, the core's and policyd's kinds) become one frozen Mesh.

Law: nothing here reads a file, a clock or the network. Text comes in, a Mesh or all its problems come out.
"""
