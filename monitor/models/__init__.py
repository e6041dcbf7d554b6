"""Networks as text, and what makes their errors mean something. Knows nothing of Kafka, SQL or configuration.

Read in this order:

    spec         what to train and on what: names and columns, no torch
    network      what every architecture is: encode, decode, and the straight path beside what it adds
    conv dense lstm forecast pca    one architecture each, top to bottom, shapes at the line ends
    statistics   what an operator would plot before any of them: the usual value, the mean of a moment ago
    variational  any of them with a distribution for a code
    build        the one table of them
    objectives   what a network is asked to do while it learns
    scaler       own units → standardised (B, C, T), gaps filled and masked
    residual     errors → how far out of the ordinary, at two time scales, and each sensor's share of it
    member       one network and its residual: a voice; several of them added up are a score
    calibrate    healthy scores → the threshold, called 1.0; windows not to be trusted as healthy
    detector     all of it as one thing that scores and explains
    apply        codes, clean windows, samples
    checkpoint   a detector on disk: safetensors and a card, content-addressed
    device       auto, cpu, cuda, mps

Nothing is imported here: an operator's command may look at `spec` without paying for torch.
"""
