"""How a champion is made; runs in its own process, never in the river.

    dataset     healthy windows, made by the river's own windower
    fit         windows → a calibrated detector, or a sentence why not
    split       which windows are learnt from, and which are held out
    auto        which network speaks beside the plain statistics
    faults      what decides it: faults put into healthy windows
    recipe      how a network learns: steps, checks, restarts
    stacked     its layers one by one, before all of them together
    diagnose    what is wrong with it: overfitting, hard training, lost features, copying, collapse
    receipt     what a training leaves in the card
    __main__    the training process: reads, fits, saves, reports progress line by line
    retrain     the daemon's end of that process
    trainer     who comes next: retrainings that are due or asked for
    champions   who decides now: follows and activates versions

Nothing is imported here: the daemon speaks to the process and needs none of its torch.
"""
