"""Istio's AuthorizationPolicies to Cedar policies that decide the same.

Law: nothing is dropped. What has no exact form in Cedar is a Problem with its place, and then nothing is made.
"""
