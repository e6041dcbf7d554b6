"""An evaluation as one HTML page without scripts and network access, in light and dark colours.

    page.py      the head with the means, the overview, the navigation
    section.py   one series: sensors, scores with the threshold at 1.0, events, alerts, missed events
    page.css     the styles

Invariant: the page needs no other file, and all text from outside is escaped.
"""
