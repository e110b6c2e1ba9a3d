"""What happened, kept: records and the journal that they are appended to.

Law: what is not on record did not happen; a caller who cannot be recorded is refused.
"""
