"""Model versions over time: training, activation, and the versions that score now.

    champions         loads the versions that the database names; activates a new one
    recalibration     derives versions for a changed budget, alert policy or sensor setting, without a training
    drills            the least faults that a version would detect, by injection into recent readings
    injection         faults in copies of healthy readings, for drills and for the gate
    scheduler         runs the retrainings that are requested or due
    training_process  starts the training process, and exchanges messages with it
    child_history     reads the history of a fleet, in the training process
    __main__          the training process: reads history, fits, saves, reports its progress line by line

Input: retraining jobs, schedules and the activations of other daemons. Output: published and activated versions.
Invariant: a failed or killed training leaves the champion in place.
"""
