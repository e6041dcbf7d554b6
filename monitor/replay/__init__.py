"""The pipeline over old records, into a scratch database.

    from_kafka      replay the records that Kafka holds
    from_files      replay recordings, each with a model trained on its own head or with the registered versions
    run             options, steps and result that both have in common
    flow            the pipeline over a finite log
    versions        the model versions that score in a replay
    offsets         the offsets to read: all, or exactly the ones consumed live, with a summary of the live results
    recording_feed  a recording → its training head, its labelled events, and record batches
    side_by_side    two sides decide over records that are read once
    diff            differences between the alerts of the two sides
    digest          stored results → one hash that is equal for equal results
    grids           recordings → windows on a model's sampling grid
    network_uses    latents, the denoised signal and synthetic recordings by a trained network
    publish         recordings and benchmark records → a topic

Invariant: a replay changes no live table.
"""
