"""Settings (policyd.yaml) become frozen values.

Law: what is not set has the safe default: loopback, a full journal denies.
"""
