"""Delivery of notifications: the outbox's messages about alerts, sent to their channels at least once each.

Input: notifications that commits stored in the outbox (`monitor.store.outbox`). Output: requests, records and mails.
Invariant: the pipeline waits for none of this. A channel that hangs delays its own notifications only.

    deliver.py          the delivery loop: one daemon sends, under a lease; order, attempts, digests, when to give up.
                        Read this first
    channels.py         `[[notify]]` → the receivers, and the way in which each is served
    webhook.py slack.py teams.py alertmanager.py kafka_topic.py apprise_service.py    one kind of receiver each
    rendering.py        a notification as a message for people, and templates
    enrich.py           the alert's page and links that act, added for people
    http_receiver.py    the common part of receivers that speak HTTP
    http_post.py        one HTTP POST, bounded in time and size, to an address that was checked first
    addresses.py        addresses that are never connected to
    failure.py          the outcome of an attempt that failed
"""
