"""``tsllm embed`` and ``tsllm store``: the store filled ahead of time, and looked after."""

import pytest
from command_line import TINY

from tsllm.backbone import Backbone
from tsllm.embeddings import EmbeddingStore

SMALL = ["--set", f"backbone={TINY}", "--set", "context_length=12", "--set", "random_state=0"]
HEAD = ["--set", "channel=8", "--set", "heads=2", "--set", "feedforward=8", "--set", "max_steps=2"]


@pytest.fixture
def computed(monkeypatch):
    """The batches that any backbone runs."""
    batches = []
    original = Backbone.last_states

    def counting(self, tokens):
        batches.append(len(tokens))
        return original(self, tokens)

    monkeypatch.setattr(Backbone, "last_states", counting)
    return batches


def test_what_was_embedded_ahead_is_not_embedded_again(tsllm, series, computed):
    done = tsllm("embed", "series.csv", "--store", "kept", "--horizon", 3, "--json", *SMALL)
    assert done.code == 0, done.err
    assert "embedding texts" in done.err  # progress, with rate and remaining time
    assert done.json["texts"] == done.json["computed"] == sum(computed)
    assert done.json["path"].endswith("kept")
    again = tsllm("embed", "series.csv", "--store", "kept", "--horizon", 3, *SMALL)
    assert f"{done.json['texts']} texts, 0 embedded now" in again.out
    computed.clear()
    # Training, calibration and the forecast find everything.
    forecast = tsllm(
        *("forecast", "series.csv", "--method", "timecma", "--horizon", 3, *SMALL, *HEAD),
        *("--set", "embedding_store=kept", "-o", "out.csv"),
    )
    assert forecast.code == 0, forecast.err
    assert computed == []


def test_embed_for_the_timestamps_of_autotimes(tsllm, series):
    arguments = ("embed", "series.csv", "--method", "autotimes", "--store", "kept", *SMALL)
    refused = tsllm(*arguments)
    assert refused.code == 2
    assert "embeds no text with these settings" in refused.err
    done = tsllm(*arguments, "--set", "timestamps=True", "--set", "token_length=6", "--json")
    assert done.code == 0, done.err
    # One sentence a step; the shorter series shares its days but for its last, shorter segments.
    assert done.json["texts"] == 70 + 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "nothing.csv"], "no file, directory or data set"),
        (["embed", "series.csv", "--set", "context_length=-1"], "context_length must be"),
        (["embed", "series.csv", "--method", "dlinear"], "embeds no text itself"),
        (["store", "stats", "series.csv"], "cannot be"),
        (["store", "stats", "nothing"], "there is no embedding store in"),
        (["store", "verify", "."], "there is no embedding store in"),
        (["store", "prune", "."], "there is no embedding store in"),
        (
            ["store", "prune", "--unused-days", "-5"],
            "--unused-days': Input should be greater than or equal to 0",
        ),
    ],
)
def test_mistakes(tsllm, series, arguments, words):
    result = tsllm(*arguments)
    assert result.code == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_store_commands(tsllm, tiny_backbone, tmp_path):
    store = EmbeddingStore(tmp_path / "kept")
    store.encode(["up", "down"], tiny_backbone)
    stats = tsllm("store", "stats", "kept", "--json").json
    assert (stats["vectors"], len(stats["spaces"])) == (2, 1)
    table = tsllm("store", "stats", "kept").out
    assert tiny_backbone.spec in table and tiny_backbone.digest[:12] in table
    assert tsllm("store", "verify", "kept").out == "2 embeddings checked, 0 damaged\n"
    pruned = tsllm("store", "prune", "kept", "--unused-days", 0, "--json").json
    assert (pruned["unwanted"], pruned["kept"]) == (2, 0)
    assert tsllm("store", "stats", "kept", "--json").json["vectors"] == 0


def test_a_damaged_store_ends_in_exit_code_1(tsllm, tiny_backbone, tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path / "kept")
    monkeypatch.setattr("tsllm.embeddings.database._checksum", lambda key, vector: b"x" * 8)
    store.encode(["up"], tiny_backbone)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    found = tsllm("store", "verify", "kept")
    assert found.code == 1
    assert "1 damaged; remove them with tsllm store prune" in found.out
    assert "removed 1 damaged" in tsllm("store", "prune", "kept").out


def test_the_store_of_the_user_is_the_default(tsllm, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("TSLLM_STORE", str(tmp_path / "named"))
    assert "0 embeddings" in tsllm("store", "stats").out
    EmbeddingStore().encode(["up"], tiny_backbone)
    stats = tsllm("store", "stats", "--json").json
    assert stats["path"] == str(tmp_path / "named")
    assert stats["vectors"] == 1
