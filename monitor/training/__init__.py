"""Training: from healthy windows to a calibrated detector. Pure: no Kafka, no SQL.

    dataset     healthy windows, made by the windower of the pipeline
    judge       times that alerts and people have a say on, applied to the windows
    events      alerts without a label that are no false alarms
    used_data   the receipt: each interval used or left out, with its reason
    split       training and held-out windows
    period      length of the windows, from the cycle of the sensors
    recognise   sensors that are counters, angles, or write codes for missing
    states      operating states: found in a sensor, and calibrated each by itself
    calendar    hours and days that explain scores of later held-out time
    scales      scales of single assets: measured, shrunk, and tried on held-out windows
    fit         windows → a calibrated detector, or an error that names the reason
    fleet_fit   one model for a fleet, or one for each asset
    executors   one function for many items: serial, in processes, on Ray
    auto        members that are solved in closed form, calibrated by forward folds
    period      the cycle of the sensors, and the window length that holds it
    faults      faults injected into healthy windows, which each member is tried on
    loop        the training loop: steps, checks, restarts
    tensors     standardised windows as tensors, and the errors of a network on them
    stacked     layer-by-layer pretraining
    diagnose    named troubles: overfitting, hard training, lost features, copying, collapse
    receipt     the training's entries in the card
    words       words and limits with which a receipt is shown

Nothing is imported here: the daemon starts the training as a process and needs none of its torch.
"""
