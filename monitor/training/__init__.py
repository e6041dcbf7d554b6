"""How a champion is made; runs in its own process, never in the river.

    dataset     healthy windows, made by the river's own windower
    fit         windows → a calibrated detector, or a sentence why not
    recipe      how a network learns: steps, checks, restarts
    diagnose    what is wrong with it: overfitting, hard training, lost features, copying, collapse
    stacked     its layers one by one, before all of them together
    __main__    the training process: reads, fits, saves, reports progress line by line
    retrain     the daemon's end of that process
    champions   who decides: loads, publishes and swaps versions

Nothing is imported here: the daemon speaks to the process and needs none of its torch.
"""
