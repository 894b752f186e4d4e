"""What `tsllm serve` starts: the model, the environment, the limits; the server itself is slow."""

import json
import os
import shlex
import shutil
import socket
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from mlflow.models import Model

import tsllm
from tsllm.backbone import devices
from tsllm.errors import DataError
from tsllm.mlflow import launching
from tsllm.mlflow.launching import Launch, Server, curl, prepare_server


@pytest.fixture
def prepare(tmp_path):
    (tmp_path / "work").mkdir()

    def prepare(model, **arguments):
        return prepare_server(str(model), tmp_path / "work", **{"port": 0, **arguments})

    return prepare


@pytest.fixture(scope="module")
def directory(forecaster, tmp_path_factory):
    return tsllm.save(forecaster, tmp_path_factory.mktemp("plain") / "model")


def settings(launch):
    return json.loads(launch.variables["SERVING_MODEL_CONFIG"])


def option(launch, name):
    return launch.command[launch.command.index(name) + 1]


def test_a_saved_model_becomes_one_of_mlflow(prepare, directory):
    launch = prepare(directory, limits={"max_horizon": 50}, seconds=90)
    assert Path(option(launch, "--model-uri")) == launch.model
    assert Model.load(str(launch.model)).flavors["tsllm"]["kind"] == "series"
    assert option(launch, "--env-manager") == "local"
    assert option(launch, "--timeout") == "90"
    assert launch.address == f"http://127.0.0.1:{option(launch, '--port')}"
    assert settings(launch)["max_horizon"] == 50
    assert settings(launch)["allow_download"] is False
    assert launch.variables["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    # uvicorn imports from its own folder first
    assert launch.folder != Path.cwd() and not list(launch.folder.iterdir())


def test_a_model_of_mlflow_is_served_as_it_is(prepare, saved):
    assert prepare(saved).model == saved.resolve()


@pytest.mark.parametrize("inside", ["", "model/"])
def test_a_zip_archive(prepare, directory, tmp_path, inside):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for file in directory.iterdir():
            archive.write(file, f"{inside}{file.name}")
    assert Model.load(str(prepare(tmp_path / "model.zip").model)).flavors["tsllm"]


@pytest.mark.parametrize(
    ("processors", "arguments", "threads", "at_once"),
    [
        (2, {}, 2, 1),
        (16, {}, 4, 4),
        (16, {"threads": 1}, 1, 16),
        (16, {"workers": 4}, 4, 1),
        (1, {"workers": 4}, 1, 1),
        (16, {"limits": {"max_concurrent": 2}}, 4, 2),
    ],
)
def test_threads_and_requests_at_once_share_the_processors(
    prepare, saved, monkeypatch, processors, arguments, threads, at_once
):
    monkeypatch.setattr(launching, "usable_processors", lambda: processors)
    launch = prepare(saved, **arguments)
    assert launch.variables["OMP_NUM_THREADS"] == str(threads)
    assert settings(launch)["max_concurrent"] == at_once


def test_processors_of_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_PROCESSOR_QUOTA", tmp_path / "cpu.max")
    free = devices.usable_processors()
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert devices.usable_processors() == free
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert devices.usable_processors() == 1


def test_a_wrong_model_is_one_sentence(prepare, saved, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no model")
    foreign = shutil.copytree(saved, tmp_path / "foreign")
    written = yaml.safe_load((foreign / "MLmodel").read_text())
    written["flavors"] = {"sklearn": {}, "python_function": {}}
    (foreign / "MLmodel").write_text(yaml.safe_dump(written))
    damaged = shutil.copytree(saved, tmp_path / "damaged")
    (damaged / "MLmodel").write_text("[")
    with zipfile.ZipFile(tmp_path / "sktime.zip", "w") as archive:
        archive.writestr("_metadata", b"")
        archive.writestr("_obj", b"")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"0" * 10_000_000)
    for name, words in {
        "missing": "does not exist",
        "file:///no/such/model": "MLflow does not find",
        "empty": "holds no model",
        "text": "no zip archive",
        "foreign": "serve it with 'mlflow models serve'",
        "damaged": "is damaged",
        "sktime.zip": "save it with tsllm.save",
        "bomb.zip": "would unpack to",
    }.items():
        place = name if name.startswith("file:") else tmp_path / name
        with pytest.raises(DataError, match=words) as caught:
            prepare(place)
        assert "\n" not in str(caught.value)


def test_wrong_numbers_are_one_sentence(prepare, saved):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for arguments, words in (
            ({"port": taken.getsockname()[1]}, "--port"),
            ({"port": 70_000}, "--port"),
            ({"host": "no.such.host.invalid"}, "--host"),
            ({"workers": 0}, "workers must be"),
            ({"threads": 0}, "threads must be"),
            ({"limits": {"max_horizont": 3}}, "no limit 'max_horizont'.*max_horizon"),
            ({"limits": {"max_horizon": 0}}, "max_horizon must be"),
        ):
            with pytest.raises(DataError, match=words):
                prepare(saved, **arguments)


def test_a_server_that_does_not_start(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    launch = Launch(command, {}, "http://127.0.0.1:9", tmp_path, tmp_path, 1, 1)
    server = Server(launch)
    with pytest.raises(DataError, match="exit code 3"):
        server.wait_until_ready()
    assert server.stop() == 3
    server = Server(Launch(["sleep", "60"], {}, launch.address, tmp_path, tmp_path, 1, 1))
    with pytest.raises(DataError, match="did not answer within 0 seconds"):
        server.wait_until_ready(0.2)
    assert server.stop() == -15


def test_the_printed_request_survives_the_shell(tmp_path):
    launch = Launch([], {}, "http://127.0.0.1:5000", tmp_path, tmp_path, 1, 1)
    request = json.dumps({"dataframe_split": {"data": [["it's", '"x"', "$HOME"]]}})
    assert shlex.split(curl(launch, request))[-1] == request
