"""Bookinfo, the application that mesh users know, in four small services: what policyd is shown on.

Run one with `python -m bookinfo.details` (or `reviews`, `ratings`, `productpage`); `settings.py` lists what the
environment may say. Law: a service knows nothing of the mesh. It calls `http://reviews:9080/...` through the
HTTP proxy of its environment, listens on loopback only, and takes nothing from the network on trust.
"""
