"""Hostile and merely ordinary inputs at every door of tsllm, with counts of what comes back.

`cases` says what a case is and how its outcome is counted, `runner` runs cases in processes of
their own, and each other file has the attacks on one door. `python -m fuzz` (``make fuzz``) runs
all of them.
"""
