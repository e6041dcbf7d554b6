"""People are told: letters that the saves left in the outbox go to those who want them, at least once each.

Enters: letters (`monitor.store.outbox`). Leaves: requests to webhooks. Nothing here is in the river's way: a webhook
that hangs delays its own letters and nothing else.

    deliver.py    the loop: one daemon sends, under a lease; order, tries, when to give up. Read this first
    webhook.py    one POST, bounded in time and size, to an address that was looked at first
    addresses.py  which addresses are never connected to
"""
