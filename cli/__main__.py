"""``python -m tsllm.cli``: the command, for launchers that start modules."""

from tsllm.cli.main import main

main()
