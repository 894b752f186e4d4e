"""Environment variables that the command sets, unless the user has set them."""

import os

#: Telemetry, switched off: transformers and the hub, MLflow, Ray.
NO_REPORTS = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare() -> None:
    """Set the environment, before torch and others are imported, which read it then."""
    # Waiting threads sleep instead of spinning, which made training 2.6 times slower on a busy
    # machine (measured at a load of 5 on two cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Do not print each retry of the hub: the outcome is reported once.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for name, off in NO_REPORTS.items():
        os.environ.setdefault(name, off)
