"""Options that make a command train in no time and alike each time."""

TINY = "random:gpt2?hidden=16&layers=1&heads=2"
SET = [
    "--method",
    "autotimes",
    "--set",
    f"backbone={TINY}",
    "--set",
    "max_steps=2",
    "--set",
    "random_state=0",
]
