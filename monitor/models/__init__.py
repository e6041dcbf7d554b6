"""Models: architectures, scaling, calibration and checkpoints. No Kafka, no SQL.

Read in this order:

    spec         the model to train and its training windows, no torch
    network      base classes: encode, decode, and a linear path beside the nonlinear one
    conv dense lstm forecast pca    one architecture each, top to bottom, shapes at the ends of lines
    statistics   predictors without training: the healthy median, the moving mean
    memory short_memory shape autoregression cross    members of an ensemble that are solved in closed form
    rows         evenly spaced rows, which models are solved on
    variational  any autoencoder with a distribution as its latent
    build        the table of architectures
    objectives   the loss that a network is trained on
    inputs       sensors → channels of the network: angles, counters, missing-value codes; and back
    sensor_profile    the healthy behaviour of each sensor, for the tests of the sensors themselves
    scaler       own units → standardised (B, C, T), gaps filled and masked
    asset_scales    the centre and the scale of each asset of a fleet
    residual     errors → z-scores at each time scale, and each sensor's share
    states       off, idle and running: the operating state of each window, no torch
    calendar     threshold by hour and kind of day, no torch
    terms        budget, alert policy and per-sensor knobs of a version, no torch
    label_factor  factor of the threshold by operators' labels, no torch
    knobs        deviations that do not count, and weights, applied to the errors
    member       a network and its residual: one member of an ensemble, and the score of all members
    calibrate    healthy scores → the threshold, called 1.0, and suspected outliers
    held_out     the healthy scores in a checkpoint, from which another threshold is derived
    clearing     the fewest sensors without which a window is not anomalous
    bundle       models of single assets in one version
    card         everything known about a version, apart from its weights
    detector     a trained model that scores and explains
    apply        latents, reconstructions, samples
    checkpoint_files  a detector on disk: safetensors and a card, content-addressed; verified without torch
    checkpoint   its tensors
    misfit       the reason why a version cannot score a fleet, no torch
    device       auto, cpu, cuda, mps

Nothing is imported here: an operator's command may use `spec` without the cost of torch.
"""
