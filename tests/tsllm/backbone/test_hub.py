"""Models of the Hugging Face hub: a hub on this machine stands in for the one on the network."""

import hashlib
import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from tsllm import load_backbone
from tsllm.errors import BackboneNotFoundError, DataError

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
TOKEN = "hf_secret"


class Hub:
    """Serves directories by revision, as the hub does, and counts what it is asked."""

    def __init__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                hub.answer(self, with_body=False)

            def do_GET(self):
                hub.answer(self, with_body=True)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def restart(self, root):
        """Serve another directory: <root>/<owner>/<name>/<revision>/<files>."""
        self.root = root
        self.gated = set()
        self.cut = set()  # names of files that are sent in part
        self.asked = []

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request, *, with_body):
        parts = request.path.partition("?")[0].strip("/").split("/")
        if len(parts) < 5 or parts[2] != "resolve":
            return self._refuse(request, 404, "EntryNotFound")
        repository, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if with_body:
            self.asked.append(name)
        if not (self.root / repository).is_dir():
            return self._refuse(request, 401, "RepoNotFound")
        if repository in self.gated and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(request, 401, "GatedRepo")
        revision = {commit: name for name, commit in COMMITS.items()}.get(revision, revision)
        if not (self.root / repository / revision).is_dir():
            return self._refuse(request, 404, "RevisionNotFound")
        path = self.root / repository / revision / name
        if not path.is_file():
            return self._refuse(request, 404, "EntryNotFound", COMMITS[revision])
        content = path.read_bytes()
        request.send_response(200)
        request.send_header("X-Repo-Commit", COMMITS[revision])
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if with_body:
            request.wfile.write(content[:100] if name in self.cut else content)
        return None

    def _refuse(self, request, status, code, commit=None):
        request.send_response(status)
        request.send_header("X-Error-Code", code)
        if commit:
            request.send_header("X-Repo-Commit", commit)
        request.send_header("Content-Length", "0")
        request.end_headers()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A directory with the files of a model."""
    directory = tmp_path_factory.mktemp("model")
    backbone = load_backbone("random:gpt2?hidden=16&layers=2&heads=2&seed=3", device="cpu")
    backbone._shared.plain.save_pretrained(directory)
    backbone.tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, in which no token lies either."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # Between its tries to connect the client would wait 24 seconds.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def server():
    """One address for all tests, because transformers keeps the first one."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def hub(server, model, cache, tmp_path, monkeypatch):
    """A hub with two revisions of one model, which this process may reach."""
    for revision in COMMITS:
        shutil.copytree(model, tmp_path / "hub" / "some" / "model" / revision)
    server.restart(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    reach(server.address, monkeypatch)
    return server


def reach(address, monkeypatch):
    """Let the hub lie at this address."""
    constants = huggingface_hub.constants
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def load(spec="some/model", **arguments):
    return load_backbone(spec, device="cpu", **arguments)


def refused(error=BackboneNotFoundError, spec="some/model", **arguments):
    with pytest.raises(error) as caught:
        load(spec, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def folder(hub, revision="main"):
    return hub.root / "some" / "model" / revision


def test_a_download_is_kept_in_the_cache(hub, model, cache, monkeypatch):
    backbone = load()
    assert backbone.digest == load_backbone(str(model), device="cpu").digest
    assert backbone.source.startswith("the Hugging Face hub, some/model, commit aaaaaaaaaaaa")
    assert (cache / "models--some--model" / "snapshots" / COMMITS["main"]).is_dir()
    del backbone
    hub.asked.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for arguments in ({}, {"allow_download": False}, {"layers": 1}):
        assert load(**arguments).source.startswith(f"the Hugging Face cache {cache}")
    assert hub.asked == []


def test_nothing_is_asked_where_the_network_is_not_allowed(hub, cache, monkeypatch):
    message = refused(allow_download=False)
    assert str(cache) in message and "the network (allow_download=False)" in message
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "the network (HF_HUB_OFFLINE is set)" in refused()
    assert hub.asked == []


def test_a_revision_is_the_one_that_was_asked_for(hub):
    config = json.loads((folder(hub, "v1") / "config.json").read_text())
    (folder(hub, "v1") / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    assert load().n_layers == 2
    assert "weights lack" in refused(revision="v1")
    assert load(revision="v1", layers=2).source.endswith("commit bbbbbbbbbbbb")
    assert load(revision=COMMITS["main"]).n_layers == 2
    assert "the model some/model has no revision 'v9'" in refused(revision="v9")


def test_a_model_that_the_hub_does_not_have(hub):
    message = refused(spec="some/other")
    assert "it has no model some/other" in message and "HF_TOKEN" in message


def test_a_gated_model_needs_a_token(hub, monkeypatch):
    hub.gated.add("some/model")
    message = refused()
    assert "the model some/model is gated: accept its licence on its page" in message
    assert "hf auth login" in message and "HF_TOKEN" in message
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "is gated" in refused()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load().n_layers == 2


def test_a_token_that_was_stored_by_hf_auth_login(hub):
    hub.gated.add("some/model")
    Path(huggingface_hub.constants.HF_TOKEN_PATH).write_text(TOKEN)
    assert load().n_layers == 2


def test_a_hub_that_does_not_answer(hub, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        reach(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch)
        assert "the Hugging Face hub (no connection to it" in refused()


def test_a_transfer_that_breaks_off_leaves_nothing_half(hub):
    hub.cut.add("model.safetensors")
    refused()
    hub.cut.clear()
    assert load().n_layers == 2


def test_a_repository_that_holds_an_adapter_is_refused_and_its_base_is_not_loaded(hub):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "some/base"}
    (folder(hub) / "adapter_config.json").write_text(json.dumps(adapter))
    message = refused()
    assert "merge it into its base model, some/base" in message
    assert "model.safetensors" not in hub.asked


def test_a_repository_without_tokenizer_files(hub):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder(hub) / name).unlink()
    assert "it has no tokenizer (tokenizer.json" in refused()


def test_a_repository_of_pickled_weights(hub):
    (folder(hub) / "model.safetensors").rename(folder(hub) / "pytorch_model.bin")
    assert "safetensors" in refused()


def test_a_repository_without_config(hub):
    (folder(hub) / "config.json").unlink()
    assert "the model some/model has no file config.json" in refused()


def test_a_repository_of_another_architecture(hub):
    (folder(hub) / "config.json").write_text('{"model_type": "t5"}')
    assert "'t5' model, which tsllm does not run" in refused(DataError)
    assert "model.safetensors" not in hub.asked


def test_a_cached_model_that_lacks_a_file_is_completed_from_the_hub(hub, cache):
    load()
    snapshot = cache / "models--some--model" / "snapshots" / COMMITS["main"]
    (snapshot / "tokenizer.json").unlink()
    message = refused(allow_download=False, dtype="bfloat16")
    assert "it has no tokenizer (tokenizer.json" in message
    assert load(dtype="bfloat16").source.startswith("the Hugging Face hub")
