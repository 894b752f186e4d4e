"""``tsllm serve`` as the guide has it, and its mistakes; tests of ``tsllm.mlflow`` run it."""

import json
import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
import yaml
from packaging.requirements import Requirement

from tsllm.cli.main import app

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guides/serving.md").read_text(encoding="utf-8")


def block(language):
    """Return the one block of the guide in a language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)
    return text


def parse(arguments):
    """Parse a command line without running it; a wrong option raises."""
    command = typer.main.get_command(app)
    name, *rest = arguments
    return command.commands[name].make_context(name, list(rest)).params


@pytest.fixture(scope="module")
def dockerfile():
    """The instructions of the guide's Dockerfile."""
    return [line.split(" ", 1) for line in block("dockerfile").splitlines()]


def test_every_line_of_the_dockerfile_names_what_exists(dockerfile):
    instructions = [name for name, _ in dockerfile]
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert set(instructions) == known and instructions[0] == "FROM" and instructions[-1] == "CMD"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (image,) = [rest for name, rest in dockerfile if name == "FROM"]
    python = image.removeprefix("python:").removesuffix("-slim")
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python)
    # Each file that is copied was made by a command before it in the guide.
    before = GUIDE[: GUIDE.index("```dockerfile")]
    made = {"wheels/": "--wheel-dir wheels", "constraints.txt": "cp ../tsllm/constraints.txt ."}
    made["model/"] = "--out model"
    sources = [rest.split()[0] for name, rest in dockerfile if name == "COPY"]
    assert set(sources) == set(made) and all(made[source] in before for source in sources)
    assert (ROOT / "constraints.txt").is_file()
    runs = [shlex.split(rest) for name, rest in dockerfile if name == "RUN"]
    (pip,) = [run for run in runs if run[:2] == ["pip", "install"]]
    wanted = Requirement(pip[-1])
    assert wanted.name == project["name"]
    assert wanted.extras <= set(project["optional-dependencies"])
    copied = [number for number, (name, _) in enumerate(dockerfile) if name == "COPY"]
    assert instructions.index("WORKDIR") < copied[0]
    (user,) = [rest for name, rest in dockerfile if name == "USER"]
    assert any(run[0] == "useradd" and run[-1] == user for run in runs)
    assert version("mlflow") in (ROOT / "constraints.txt").read_text()


def test_the_container_serves_the_model_on_its_port(dockerfile):
    parts = dict(dockerfile)
    program, *arguments = json.loads(parts["CMD"])
    assert program == "tsllm"
    asked = parse(arguments)
    assert (asked["model"], asked["host"]) == ("model", "0.0.0.0")
    assert asked["port"] == int(parts["EXPOSE"])
    assert f"127.0.0.1:{asked['port']}/ping" in parts["HEALTHCHECK"]
    check = json.loads(parts["HEALTHCHECK"].partition("CMD ")[2])
    compile(check[2], "HEALTHCHECK", "exec")


def test_the_probes_of_kubernetes_ask_the_server(dockerfile):
    written = yaml.safe_load(block("yaml"))
    template = written["spec"]["template"]
    assert written["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    (container,) = template["spec"]["containers"]
    port = int(dict(dockerfile)["EXPOSE"])
    assert container["ports"] == [{"containerPort": port}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/ping", "port": port}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_the_commands_of_the_guide_are_understood():
    commands = re.findall(r"^\$? ?tsllm (serve .*|fit .*)$", GUIDE, re.M)
    assert len(commands) >= 3
    for command in commands:
        parse(shlex.split(command))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "'missing' does not exist"),
        (["missing", "--limit", "max_horizon"], "--limit must be NAME=NUMBER"),
        (["missing", "--limit", "max_horizon=much"], "--limit must be NAME=NUMBER"),
        (["missing", "--limit", "horizon=3"], "no limit 'horizon'"),
        (["missing", "--workers", "0"], "workers must be"),
        ([], "MODEL"),
    ],
)
def test_a_mistake_is_one_line(tsllm, arguments, words):
    result = tsllm("serve", *arguments)
    assert result.code == 2 and result.out == ""
    assert words in result.err and len(result.err.strip().splitlines()) == 1
