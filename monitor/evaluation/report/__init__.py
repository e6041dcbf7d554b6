"""An evaluation as one page that needs nothing else: no script, no network, light and dark.

    picture.py   a series and its scores → paths of a few hundred points, drawn where they were computed
    strips.py    a series on the page: sensors, scores with the line at 1.0, events, alerts, misses
    page.py      the head with the means, the overview, navigation
    page.css     how it looks

Law: no peak is lost. A column of pixels spans the least and the greatest value of its rows.
"""
