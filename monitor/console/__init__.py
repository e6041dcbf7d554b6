"""The console: pages and an API for operators, in a process of its own.

    app.py          `create_app`: the application. Read this first
    server.py       uvicorn with limits
    gate.py         the checks of every request: host, login, CSRF, size, time
    security.py     the sender of a request, and his rights
    signing.py      signed cookies and tokens of forms
    login.py        login, logout
    state.py        `Console`, with `read` and `act` for the routes
    reading.py      readers of the database in worker threads
    events.py       the stream of changes, for live pages
    api/            the REST API
    pages/          the pages
    forms.py        operators' acts from the pages
    links.py        operators' acts from notifications
    rendering.py templates/ static/    templates, style sheet and script
    static.py       addresses of the files in static/
    problems.py     errors as answers

Input: the database. Output: HTTP answers. Invariant: it reads through `store.reader` and writes through `control`
alone, so it acts like the command line.
"""
