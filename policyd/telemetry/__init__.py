"""Signals of policyd itself: metrics and health.

Law: names come from policyd.names; label values are bounded sets, never a caller's text.
"""
