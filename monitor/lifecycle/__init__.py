"""Model versions over time: training, activation, and the versions that score now.

    champions         loads the versions that the database names; activates a new one
    recalibration     derives versions for a changed budget, alert policy or sensor setting, without a training
    drills            the least faults that a version would detect, by injection into recent readings
    drill_results     the daemon's side of drills: schedule, storage, the alert `drill_failed`
    drill_process     the drill in the training process
    injection         faults in copies of healthy readings, for drills and for the gate
    gate              judges a new version against the champion, without labels
    gate_checks       the checks of the gate, and their limits
    verdict           the gate's result as it is stored and shown
    recent            the alerts that a version would raise on recent windows
    fault_trial       the injected faults that two versions find
    fault_memory      the confirmed faults that a new version must still find
    event_memory      the alerts without a label that a new version must not have learnt
    scheduler         starts and ends the jobs that are requested or due, one at a time
    job_runner        carries out a job: a training, a comparison in shadow, a drill
    due               the next training of a fleet, and the reason for it
    drift             whether recent days differ from those that the champion was calibrated on
    input_drift       whether readings since a training differ from those before it, sensor by sensor
    drift_watch       the tests for drift of each fleet, once a day
    promotion         the fate of a trained version, by the mode of promotion and the gate's verdict
    orders            orders for the training process, from the database
    training_process  starts the training process, and exchanges messages with it
    child_limits      priority and memory of the training process
    child_history     reads the history of a fleet, in the training process
    __main__          the training process: reads history, fits, saves, reports its progress line by line

Input: retraining jobs, schedules and the activations of other daemons. Output: published and activated versions.
Invariant: a failed or killed training leaves the champion in place.
"""
