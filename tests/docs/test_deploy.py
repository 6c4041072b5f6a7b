"""What is deployed by docs/deploy is what the code knows."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from documents import ROOT, document

from deepgps.cli.app import app
from opengps.settings import PREFIX, Settings

DEPLOY = ROOT / "docs" / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
PAGE = "docs/how-to/run-opengps-for-a-lab.md"
KNOWN = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("path", [*FILES, ROOT / PAGE], ids=lambda path: path.name)
def test_every_setting_is_one(path):
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+", path.read_text(encoding="utf-8")))
    assert named - KNOWN == set()


def test_the_page_names_every_file():
    linked = set(re.findall(r"\.\./deploy/([^)]+)", document(PAGE)))
    copied = set(re.findall(r"docs/deploy/([a-z.@-]+)", document(PAGE)))
    assert {path.name for path in FILES} - linked - copied == {"Dockerfile.dockerignore"}


def test_the_dockerfile_is_linted():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def stages():
    """The stages of the Dockerfile, by name, and all that each builds on."""
    found, text = {}, (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for parent, name, body in re.findall(r"^FROM (\S+) AS (\S+)$(.*?)(?=^FROM|\Z)", text, re.M | re.S):
        copied = "".join(found[each] for each in re.findall(r"--from=(\S+)", body))
        found[name] = found.get(parent, "") + copied + body
    return found


@pytest.mark.parametrize(
    ("target", "extras"), [("base", set()), ("train", {"train", "scale"}), ("web", {"web-cluster"})]
)
def test_each_image_installs_its_extras_and_runs_as_nobody_special(target, extras):
    text = stages()[target]
    installed = {each for names in re.findall(r"'\.\[(.+?)\]'", text) for each in names.split(",")}
    known = tomllib.loads(document("pyproject.toml"))["project"]["optional-dependencies"]
    assert installed == extras <= set(known)
    assert (
        installed
        == extras
        <= set(tomllib.loads(document("pyproject.toml"))["project"]["optional-dependencies"])
    )
    assert ("torch" in text) == (target == "train")
    assert re.findall(r"^USER (.+)$", text, re.M) == ["10001"]
    assert f"--target {target} " in document("docs/deploy/Dockerfile")
    assert f"| `{target}` |" in document("docs/how-to/run-in-containers.md")


def test_the_image_for_training_has_the_torch_of_the_makefile():
    (torch,) = re.findall(r"^ARG TORCH=(.+)$", stages()["train"], re.M)
    assert f"TORCH ?= {torch}\n" in document("Makefile")


def test_the_website_is_built_where_no_target_is_named():
    assert list(stages())[-1] == "web" == COMPOSE["x-opengps"]["build"]["target"]
    assert "HEALTHCHECK" in stages()["web"] and "ENTRYPOINT" not in stages()["base"]


def test_what_the_image_copies_is_there_and_not_ignored():
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M)
    names = {name for line in copied for name in line.split()}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert all((ROOT / name).exists() for name in names)
    assert {line[1:] for line in ignored if line.startswith("!")} == names


def commands(tokens):
    """Words that the command line knows."""
    return app.parse_args(list(tokens), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", ["server", "worker"])
def test_the_composed_commands_are_commands(name):
    commands(COMPOSE["services"][name]["command"])
    entry = re.search(r'^ENTRYPOINT \["(.+)"\]', (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)
    assert entry and entry[1] == "deepgps"


def test_compose_names_what_it_has():
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        assert {each.partition(":")[0] for each in service.get("volumes", ())} <= set(volumes)
        assert (DEPLOY / service.get("build", {}).get("context", ".")).resolve().is_dir()
    hosts = re.findall(r"@(\w+)[:/]", " ".join(map(str, services["server"]["environment"].values())))
    assert set(hosts) == {"database"}
    settings = Settings(
        **{
            name.removeprefix(PREFIX).lower(): re.sub(r"\$\{\w+(:\?[^}]*|:-([^}]*))?\}", r"\2", value)
            for name, value in services["worker"]["environment"].items()
            if name.startswith(PREFIX)
        }
    )
    assert settings.storage_url == "file:///files"


def test_secrets_come_from_the_environment_alone():
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    # Where a password belongs there is a variable, which must be set.
    assert re.findall(r"(?:PASSWORD|AUTH): (?!\$\{\w+:\?)", text) == []
    assert re.findall(r"://\w*:(?!\$\{\w+:\?)[^@\s]*@", text) == []
    example = dict(re.findall(r"^#?(\w+)=(.*)$", (DEPLOY / "env.example").read_text("utf-8"), re.M))
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)
    assert all(not value for name, value in example.items() if "PASSWORD" in name or "SECRET" in name)
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".env" in ignored


@pytest.mark.parametrize("name", ["opengps.service", "opengps-worker@.service"])
def test_the_units_are_valid_and_their_commands_are_commands(name, tmp_path):
    text = (DEPLOY / name).read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=(\S+) (.+)$", text, re.M)
    commands(command[1].split())
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed; run tests/opengps/debian.sh")
    real = Path(sys.executable).with_name("deepgps")
    (tmp_path / name).write_text(text.replace(command[0], str(real)), encoding="utf-8")
    done = subprocess.run([verify, "verify", tmp_path / name], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_proxy_takes_what_the_site_takes():
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    (most,) = re.findall(r"client_max_body_size (\d+)m;", text)
    assert Settings().max_request_bytes <= int(most) * 10**6 <= 1.1 * Settings().max_request_bytes
    headers = {"Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Remote-User"}
    assert headers == set(re.findall(r"proxy_set_header (\S+)", text))
    assert text.count("{") == text.count("}")


def test_the_workflow_of_records_is_checked():
    checker = Path(sys.executable).with_name("miniwdl")
    check = [checker, "check", "--strict", DEPLOY / "records" / "records.wdl"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_of_records_calls_a_command_and_passes_the_fields_of_a_record():
    text = (DEPLOY / "records" / "records.wdl").read_text(encoding="utf-8")
    (command,) = re.findall(r"deepgps (predict .*?)\|\|", text, re.S)
    # Each placeholder with its option, or else a number.
    filled = re.sub(r"""~\{(?:true=)?"([^"]+)"( \+)?[^}]*\}""", r"\1 \2", command.replace("\\", ""))
    commands(re.sub(r"~\{[^}]*\}|\+", "1", filled).split())
    fields = re.findall(r"^    \w+\?? (\w+)$", text.partition("struct")[2].partition("}")[0], re.M)
    page = document("docs/how-to/predict-records.md")
    assert fields and all(f"`{name}`" in page for name in fields)
