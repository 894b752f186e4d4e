"""The torch modules of the five methods: tensors in, tensors out."""

if __name__ == "adapters":
    raise ImportError(
        "this folder is tsllm's own 'adapters' package and is imported as 'tsllm.adapters'; "
        "install tsllm and keep the repository root off sys.path (PYTHONSAFEPATH=1)"
    )
