"""Drawings as SVG text: lines, bands, bars and lanes over time, for the console, the evaluation report and mail.

Input: arrays of numbers. Output: SVG with a title and a description. Invariant: pure, without scripts or outside files.
"""
