"""Model versions over time.

    champions         the versions that decide now, as the database says
    scheduler         retrainings that are due or requested
    training_process  the daemon's end of the training process
    __main__          the training process: reads, fits, saves, reports progress line by line

Invariant: a failed or killed training leaves the champion in place.
"""
