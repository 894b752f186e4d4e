"""S2IPForecaster: the sizes it chooses, what it trains, and what it shows of its anchors."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from sktime.datasets import load_airline

from small_forecasters import TINY, panel, season, small
from tsllm import Context, S2IPForecaster, load_backbone
from tsllm.errors import DataError
from tsllm.forecasters.s2ip import nearest_words, readable_words

make = functools.partial(small, "s2ip")
AUTO = dict.fromkeys(["patch_length", "stride", "trend_length", "seasonal_length"], "auto")


def hourly(steps):
    index = pd.date_range("2024-01-01", periods=steps, freq="h")
    return pd.Series(season(steps), index=index)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("y", "context", "expected"),
    [
        (hourly(1200), "auto", (512, 16, 8, 24, 24)),
        (hourly(1200), 96, (96, 16, 8, 24, 24)),
        (hourly(60), "auto", (30, 7, 3, 7, 1)),  # not two days in the context
        (load_airline(), "auto", (72, 16, 8, 12, 12)),
        (pd.Series(season(200)), "auto", (100, 16, 8, 25, 1)),
        (pd.Series(season(4)), "auto", (2, 1, 1, 1, 1)),
    ],
)
def test_sizes_follow_the_context_and_the_frequency(y, context, expected):
    forecaster = S2IPForecaster(
        None, context_length=context, pool_size=8, max_steps=1, random_state=0
    )
    summary = forecaster.fit(y).summary()
    names = ("context_length", "patch_length", "stride", "trend_length", "seasonal_length")
    assert tuple(summary[name] for name in names) == expected


def test_lengths_that_were_asked_for_are_taken_and_cut_to_a_context_that_was_not():
    asked = {"patch_length": 10, "stride": 3, "trend_length": 9, "seasonal_length": 7}
    y = pd.Series(season(60))
    assert make(**asked, context_length=12).fit(y).summary().items() >= asked.items()
    short = make(**asked, context_length="auto").fit(pd.Series(season(12))).summary()
    assert [short[name] for name in ("context_length", *asked)] == [3, 3, 3, 3, 7]


# ---------------------------------------------------------------- training


def test_the_history_holds_the_similarity_and_training_raises_it():
    settings = {"max_steps": None, "max_epochs": 6, "learning_rate": 1e-2, "patience": 6}
    forecaster = make(**settings, similarity_coef=-0.5).fit(load_airline())
    similarities = [h["similarity"] for h in forecaster.fitted_.history]
    assert len(similarities) == 6
    assert similarities[-1] > similarities[0] + 0.1
    assert max(similarities) <= 2 + 1e-6  # cosines of two anchors
    apart = make(**settings, similarity_coef=0.5).fit(load_airline())
    assert apart.fitted_.history[-1]["similarity"] < similarities[-1]


def test_the_similarity_weighs_in_training_and_not_in_validation():
    y = load_airline()
    with_term, without = (
        make(similarity_coef=c, max_steps=1, learning_rate=1e-12, dropout=0.0).fit(y)
        for c in (-100.0, 0.0)
    )
    one, other = with_term.fitted_.history[0], without.fitted_.history[0]
    assert one["train_loss"] == pytest.approx(
        other["train_loss"] - 100 * one["similarity"], rel=1e-4
    )
    assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("parameters", "trained"),
    [
        ({}, {"in_layer", "out_layer", "anchors", "ln_1", "ln_2", "ln_f", "wpe"}),
        ({"tune": ["layer_norms"]}, {"in_layer", "out_layer", "anchors", "ln_1", "ln_2", "ln_f"}),
        ({"tune": (), "anchor_pool": "clusters"}, {"in_layer", "out_layer"}),
        ({"backbone": None}, {"in_layer", "out_layer", "anchors"}),
    ],
)
def test_what_is_trained_is_what_was_asked_for(parameters, trained):
    forecaster = make(**parameters)
    untrained = make(**parameters, learning_rate=1e-30)
    after = dict(forecaster.fit(load_airline()).fitted_.model.named_parameters())
    before = dict(untrained.fit(load_airline()).fitted_.model.named_parameters())
    groups = ("in_layer", "out_layer", "anchors", "ln_1", "ln_2", "ln_f", "wpe", "lora")
    changed = {g for g in groups for n in after if g in n and not torch.equal(after[n], before[n])}
    assert changed == {g for g in groups for n in after if g in n} == trained


def test_fewer_windows_make_shorter_epochs():
    y = pd.Series(season(300))
    steps = [
        make(window_stride=s, max_steps=None, max_epochs=1).fit(y).fitted_.history[0]["step"]
        for s in (1, 4)
    ]
    assert steps == [-(-(300 - 30 - 18 + 1) // 32), -(-64 // 32)]


def test_a_season_is_learnt_with_every_kind_of_anchors():
    y = pd.Series(season(400))
    for kind in ("free", "clusters", "prototypes"):
        forecaster = make(anchor_pool=kind, max_steps=150, learning_rate=1e-2).fit(y)
        ahead = 10 + np.sin(np.arange(400, 406) * 2 * np.pi / 12)
        assert np.abs(forecaster.predict(fh=range(1, 7)).to_numpy() - ahead).max() < 0.6, kind


# ---------------------------------------------------------------- looking inside


def test_anchors_names_what_the_forecast_was_prompted_with():
    y = panel([40, 55], ["b", "a"])
    y["other"] = y["value"].to_numpy()[::-1]
    forecaster = make().fit(y)
    table = forecaster.anchors(top=3)
    assert table.columns.tolist() == [
        *("series_id", "variable", "rank", "anchor", "similarity", "words", "word_similarities")
    ]
    assert table["series_id"].tolist() == ["b"] * 4 + ["a"] * 4
    assert table["variable"].tolist() == ["value", "value", "other", "other"] * 2
    assert table["rank"].tolist() == [1, 2] * 4
    model, backbone = forecaster.fitted_.model, forecaster.fitted_.backbone
    pool = model.anchors(backbone.word_embeddings).detach()
    for row in table.itertuples():
        assert len(row.words) == len(set(row.words)) == 3
        assert row.word_similarities == sorted(row.word_similarities, reverse=True)
        word = backbone.tokenizer.get_vocab()[row.words[0]]
        cosine = torch.cosine_similarity(pool[row.anchor], backbone.word_embeddings[word], dim=0)
        assert row.word_similarities[0] == pytest.approx(float(cosine), abs=1e-5)
    # The last window of each series, as the model reads it.
    window = y.loc["b"]["other"].to_numpy()[-12:]
    aligned = model.align(torch.tensor(window, dtype=torch.float32)[None, :, None])
    assert table["anchor"].tolist()[2:4] == aligned.found.indices[0].tolist()
    np.testing.assert_allclose(
        table["similarity"][2:4], aligned.found.similarities[0].detach(), atol=1e-4
    )


def test_anchors_of_other_histories():
    forecaster = make().fit(load_airline())
    other = pd.Series(season(30), index=pd.period_range("2020-01", periods=30, freq="M"))
    assert len(forecaster.anchors(other)) == 2
    assert forecaster.anchors(load_airline()).equals(forecaster.anchors())
    with pytest.raises(DataError, match=r"row 0 is 2024-01-01.*which is 'D'"):
        forecaster.anchors(panel([30], ["a"]))


def test_clusters_are_the_same_anchors_in_every_fit():
    pools = [
        make(anchor_pool="clusters", random_state=i).fit(load_airline()).fitted_.model.anchors(None)
        for i in (0, 1)
    ]
    assert torch.equal(*pools)


def test_anchors_without_words_have_no_names():
    forecaster = make(backbone=None).fit(load_airline())
    with pytest.raises(DataError, match="anchors are named by the language model's words"):
        forecaster.anchors()
    with pytest.raises(DataError, match="top must be a whole number of at least 1, found 0"):
        make().fit(load_airline()).anchors(top=0)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_joint_space_is_drawn(method):
    pytest.importorskip("matplotlib")
    forecaster = make().fit(load_airline())
    axes = forecaster.plot_anchors(method=method)
    anchors, tokens, chosen = (np.asarray(c.get_offsets()) for c in axes.collections)
    assert anchors.shape == (20, 2)
    assert tokens.shape == (forecaster.fitted_.model.n_patches, 2)
    table = forecaster.anchors(top=1).sort_values("anchor")
    np.testing.assert_allclose(chosen, anchors[table["anchor"]])
    assert [t.get_text() for t in axes.texts] == [words[0] for words in table["words"]]
    with pytest.raises(DataError, match="method must be one of pca, tsne, found 'umap'"):
        forecaster.plot_anchors(method="umap")


def test_the_joint_space_keeps_angles_not_lengths():
    pytest.importorskip("matplotlib")
    from tsllm.plotting.anchors import plot_joint_space

    rng = np.random.default_rng(0)
    anchors, tokens = rng.normal(size=(9, 5)), rng.normal(size=(4, 5))
    plain = plot_joint_space(anchors, tokens, np.array([2])).collections[1].get_offsets()
    scaled = plot_joint_space(anchors * 7, tokens * 0.1, np.array([2])).collections[1].get_offsets()
    np.testing.assert_allclose(plain, scaled)


def test_the_alignment_is_drawn_over_the_epochs():
    pytest.importorskip("matplotlib")
    forecaster = make(max_steps=None, max_epochs=3).fit(load_airline())
    line, kept = forecaster.plot_alignment().get_lines()
    history = forecaster.fitted_.history
    np.testing.assert_allclose(line.get_ydata(), [h["similarity"] / 2 for h in history])
    assert kept.get_xdata()[0] == forecaster.fitted_.best_epoch
    forecaster.plot_anchors(ax=forecaster.plot_alignment())  # into axes that are there


def test_words_a_person_can_read():
    backbone = load_backbone("sentence-transformers/all-MiniLM-L6-v2", layers=1, device="cpu")
    words = readable_words(backbone)
    assert {"rise", "growth", "winter", "7"} <= words.keys()
    assert not {"[CLS]", "[PAD]", "[unused3]", "##ing", "-", ""} & words.keys()
    embedding = backbone.word_embeddings[words["winter"]][None]
    (names,), (cosines,) = nearest_words(embedding * 3, backbone, 2)
    assert names[0] == "winter"
    assert cosines[0] == pytest.approx(1.0, abs=1e-5)


def test_rows_of_the_embeddings_without_a_token_are_no_words():
    backbone = load_backbone("random:gpt2?vocab=400", device="cpu")
    words = readable_words(backbone)
    assert words["A"] == backbone.tokenizer.get_vocab()["A"]
    assert "a" not in words  # reads like "A"
    assert max(words.values()) < 256
    assert all(word.isprintable() and word.strip() == word for word in words)
    (names,), _ = nearest_words(torch.randn(1, 64), backbone, 1000)
    assert sorted(names) == sorted(words)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"anchor_pool": "words"}, "anchor_pool must be one of free, prototypes, clusters, found"),
        ({"tune": "positions"}, "tune must be a list of text, found 'positions'"),
        ({"tune": ("heads",)}, "tune lists some of layer_norms, positions"),
        ({"pool_size": 0}, "pool_size must be a whole number of at least 1, found 0"),
        ({"prompt_length": 21}, "prompt_length=21 must be at most pool_size=20"),
        ({"patch_length": 13}, "patch_length=13 must be at most 12, the steps of the context"),
        ({"stride": 5}, "stride=5 must be at most 4, the steps of the patch"),
        ({"trend_length": 13}, "trend_length=13 must be at most 12, the steps of the context"),
        ({"seasonal_length": 0}, "seasonal_length must be a whole number of at least 1 or 'auto'"),
        ({"stride": "half"}, "stride must be a whole number of at least 1 or 'auto', found 'half'"),
        ({"anchor_pool": "clusters", "pool_size": 999}, "pool_size=999 clusters are more than"),
        (
            {"context_length": 600, "backbone": TINY, "stride": 1, "patch_length": 2},
            "makes 602 tokens, and the backbone .* reads at most 256",
        ),
        ({"window_stride": 0}, "window_stride must be a whole number"),
    ],
)
def test_bad_parameters(parameters, words):
    with pytest.raises(DataError, match=words):
        make(**parameters).fit(load_airline())


def test_a_model_saved_without_its_context_names_the_anchors_of_given_histories(tmp_path):
    import tsllm

    forecaster = make().fit(load_airline())
    path = tsllm.save(forecaster, tmp_path / "model", include_context=False)
    loaded = tsllm.load(path)
    with pytest.raises(DataError, match="pass the recent past of the series as y"):
        loaded.anchors()
    assert loaded.anchors(load_airline()).equals(forecaster.anchors())


@pytest.mark.parametrize("kind", ["free", "clusters", "prototypes"])
def test_a_saved_model_holds_what_was_trained_and_no_word_embeddings(kind, tmp_path):
    import safetensors.torch

    import tsllm

    forecaster = make(anchor_pool=kind, backbone="random:gpt2?hidden=16&layers=1&vocab=5000")
    forecaster.fit(load_airline())
    path = tsllm.save(forecaster, tmp_path / "model")
    tensors = safetensors.torch.load_file(path / "model.safetensors")
    assert not [n for n, t in tensors.items() if tuple(t.shape) == (5000, 16)]
    sizes = {n.rsplit("model.", 1)[-1]: tuple(t.shape) for n, t in tensors.items() if "anch" in n}
    assert (
        sizes
        == {
            "free": {"anchors.rows": (20, 16)},
            "clusters": {"anchors.centres": (20, 16)},
            "prototypes": {"anchors.linear.weight": (20, 5000), "anchors.linear.bias": (20,)},
        }[kind]
    )
    contexts = [Context(season(30)), Context(season(8))]
    np.testing.assert_array_equal(
        tsllm.load(path).forecast(contexts, 9), forecaster.forecast(contexts, 9)
    )
