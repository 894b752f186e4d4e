"""``tsllm store stats|verify|prune``: contents and checks of an embedding store."""

from pathlib import Path
from typing import Annotated

import typer

from tsllm.cli import options
from tsllm.cli.output import print_json, print_table, working

app = typer.Typer(
    name="store",
    help="Inspect, check and clean the store of embeddings.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIR]",
        help="Folder of the store. Default: TSLLM_STORE, else the user's cache folder.",
        show_default=False,
    ),
]


@app.command()
def stats(folder: Folder = None, json: options.Json = False) -> None:
    """Print the contents of a store by backbone, and its size."""
    from tsllm.embeddings import open_store

    store = open_store(folder)
    if folder is not None:
        store.check_exists()
    found = store.stats()
    if json:
        print_json({key: found[key] for key in ("path", "vectors", "bytes", "spaces")})
        return
    print(f"{found['path']}: {found['vectors']} embeddings, {found['bytes'] / 1e6:.1f} MB")
    if found["spaces"]:
        print_table(
            [
                {
                    "backbone": space["backbone"],
                    "digest": space["digest"][:12],
                    "pooling": space["pooling"],
                    "width": space["hidden_size"],
                    "computed in": space["compute_dtype"],
                    "kept in": space["stored_dtype"],
                    "embeddings": space["vectors"],
                    "last used": space["used"],
                }
                for space in found["spaces"]
            ]
        )


@app.command()
def verify(folder: Folder = None, json: options.Json = False) -> None:
    """Compare every embedding with its checksum; exit code 1 where one is damaged."""
    from tsllm.embeddings import open_store

    store = open_store(folder)
    with working("verifying"):
        found = store.verify()
    if json:
        print_json({"path": str(store.path), **found})
    else:
        remedy = f"; remove them with tsllm store prune {store.path}" if found["damaged"] else ""
        print(f"{found['vectors']} embeddings checked, {found['damaged']} damaged{remedy}")
    if found["damaged"]:
        raise typer.Exit(1)


@app.command()
def prune(
    folder: Folder = None,
    unused_days: Annotated[
        float | None,
        typer.Option(
            "--unused-days",
            help="Remove embeddings of backbones that were not used for this many days.",
            metavar="DAYS",
            min=0,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Remove damaged embeddings and, with --unused-days, unused ones."""
    from tsllm.embeddings import open_store

    store = open_store(folder)
    with working("pruning"):
        counts = store.prune(unused_days=unused_days)
    if json:
        print_json({"path": str(store.path), **counts})
    else:
        print(
            f"removed {counts['damaged']} damaged and {counts['unwanted']} unused embeddings, "
            f"kept {counts['kept']}"
        )
