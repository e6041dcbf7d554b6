"""Explanations of alerts from their evidence: what happened, on which sensor, against what was expected.

Input: evidence as arrays. Output: sentences, bands and similarities. Invariant: pure NumPy, no I/O.
"""
