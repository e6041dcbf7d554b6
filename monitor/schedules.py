"""Recurring times: cron expressions with durations and time zones.

Input: a cron expression and moments in µs. Output: whether a moment lies in an occurrence, and when that ends.
"""
