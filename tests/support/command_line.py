"""Options that make a command train in no time and alike each time."""

from typing import Any

TINY = "random:gpt2?hidden=16&layers=1&heads=2"
#: Parameters of `tsllm.forecast`, and the same as options.
SETTINGS: dict[str, Any] = {
    "method": "autotimes",
    "backbone": TINY,
    "max_steps": 2,
    "random_state": 0,
}
SET = ["--method", SETTINGS["method"]]
SET += [
    part
    for name, value in SETTINGS.items()
    if name != "method"
    for part in ("--set", f"{name}={value}")
]
