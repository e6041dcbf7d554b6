"""The river: source → decode → window → score → decide → save. Read `pipeline.py` first, the rest in that order."""
