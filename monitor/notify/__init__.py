"""Delivery of notifications: the outbox's messages about alerts, sent to webhooks at least once each.

Input: notifications that commits stored in the outbox (`monitor.store.outbox`). Output: requests to webhooks.
Invariant: the pipeline waits for none of this. A webhook that hangs delays its own notifications only.

    deliver.py    the delivery loop: one daemon sends, under a lease; order, attempts, when to give up. Read this first
    webhook.py    one HTTP POST, bounded in time and size, to an address that was checked first
    addresses.py  addresses that are never connected to
"""
