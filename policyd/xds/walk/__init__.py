"""What an Envoy does with one request, read from the very resources that it is sent.

Law: nothing here knows where the resources came from; what Envoy would not do with them is not told of them, and what
is not understood here is an error and never a guess.
"""
