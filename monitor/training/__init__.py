"""How a champion is made; runs in its own process, never in the river.

    dataset   healthy windows, made by the river's own windower
    fit       windows → a calibrated detector, or a sentence why not
    recipe    how a network learns: steps, checks, restarts
    compare   challenger against champion
    retrain   the process: reads, fits, publishes, reports progress
"""
