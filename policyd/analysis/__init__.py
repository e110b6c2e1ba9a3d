"""What of a mesh folder works and is probably not meant, and what does not work at all, under Istio's codes.

Law: pure functions of what was declared and of the Mesh that came of it; what is told is sure for this mesh. One module
a family of findings. A code of Istio's means here what it means there; what Istio does not know has one of our own.
"""
