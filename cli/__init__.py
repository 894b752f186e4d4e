"""The ``tsllm`` command: each command calls the library and nothing more."""

if __name__ == "cli":
    raise ImportError(
        "this folder is tsllm's own 'cli' package and is imported as 'tsllm.cli'; "
        "install tsllm and keep the repository root off sys.path (PYTHONSAFEPATH=1)"
    )
