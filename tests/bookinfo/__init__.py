"""Bookinfo: each service as a process on loopback, and its parts with fakes of the services it calls."""
