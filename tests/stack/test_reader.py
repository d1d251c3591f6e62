"""What we rely on Docker Compose for, as its users know it; and how it is found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterswarm.stack import reader
from afterswarm.stack.reader import Source, Unreadable

try:
    reader.compose()
except Unreadable as why:
    pytest.skip(str(why), allow_module_level=True)


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def service(folder: Path, *names: str, **more: Any) -> Any:
    files = [str(folder / name) for name in names or ("compose.yaml",)]
    return reader.read(Source(files=files, **more), "shop").content["services"]["web"]


def test_anchors_merge_keys_and_interpolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "yes")
    text = """
x-common: &common {labels: {a: "1"}, init: true}
services:
  web:
    <<: *common
    image: "web:${TAG}"
    environment:
      DEFAULT: "${NONE:-${SET:-no}}"
      OTHER: "${SET:+there}"
      ESCAPED: "$${SET} costs $$5"
      DOLLARS: "$$$$"
"""
    write(tmp_path, {"compose.yaml": text, ".env": "TAG=2.1\n"})
    web = service(tmp_path)
    assert (web["image"], web["labels"], web["init"]) == ("web:2.1", {"a": "1"}, True)
    assert web["environment"] == {"DEFAULT": "yes", "OTHER": "there", "ESCAPED": "${SET} costs $5", "DOLLARS": "$$"}


def test_files_are_merged_by_the_rules_of_compose(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "compose.yaml": "services: {web: {image: a, command: [x], ports: ['80:80'], environment: [A=1, B=1]}}",
            "more.yaml": """
services:
  web:
    image: b
    command: !reset null
    ports: !override ["81:81"]
    environment: {B: "2"}
""",
        },
    )
    web = service(tmp_path, "compose.yaml", "more.yaml")
    assert (web["image"], web["command"], web["environment"]) == ("b", None, {"A": "1", "B": "2"})
    assert [p["published"] for p in web["ports"]] == ["81"]


def test_include_extends_profiles_and_env_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "compose.yaml": """
include: [db/compose.yaml]
services:
  web:
    extends: {file: base.yaml, service: base}
    env_file: [{path: web.env, required: true}, {path: none.env, required: false}]
    depends_on: [db]
  debug: {image: d, profiles: [debug]}
""",
            "base.yaml": "services: {base: {image: base, init: true}}",
            "db/compose.yaml": "services: {db: {image: db, volumes: ['./data:/data']}}",
            "web.env": "A='quoted'\n# no\nB=${A}-2\n",
        },
    )
    model = reader.read(Source(files=[str(tmp_path / "compose.yaml")]), "shop").content
    assert set(model["services"]) == {"web", "db"}
    assert model["services"]["db"]["volumes"][0]["source"] == str(tmp_path / "db" / "data")
    assert model["services"]["web"]["environment"] == {"A": "quoted", "B": "quoted-2"}
    assert model["services"]["web"]["init"]
    profiles = Source(files=[str(tmp_path / "compose.yaml")], profiles=["debug"])
    assert set(reader.read(profiles, "shop").content["services"]) == {"web", "db", "debug"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {a: {image: x, port: 1}}", "services.a.port"),
        ("services: {a: {image: 'x${N:?say N}'}}", "say N"),
        ("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}", "cycle"),
        ("services: {a: {image: x, networks: [n]}}", "undefined network"),
        ("services: {a: {image: x, env_file: none.env}}", "none.env"),
        ("services: [", "yaml"),
    ],
)
def test_what_is_wrong_is_said_in_its_words(text: str, words: str) -> None:
    with pytest.raises(Unreadable) as refused:
        reader.read(Source(files=["-"], stdin=text.encode()), "shop")
    assert words in str(refused.value)
    assert "level=" not in str(refused.value)


def test_warnings_are_passed_on_but_not_those_about_swarms() -> None:
    text = "version: '3'\nservices: {a: {image: 'x${UNSET_HERE}', deploy: {endpoint_mode: dnsrr, labels: [a=b]}}}"
    model = reader.read(Source(files=["-"], stdin=text.encode()), "shop")
    assert model.warnings == ['The "UNSET_HERE" variable is not set. Defaulting to a blank string.']


def test_the_environment_is_that_of_the_interpolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "from the shell")
    write(
        tmp_path,
        {
            "compose.yaml": "services: {web: {image: x, secrets: [k, o]}}\n"
            "secrets: {k: {environment: KEY}, o: {environment: OTHER}}",
            ".env": "KEY=no\nOTHER=from the file",
        },
    )
    environment = reader.read(Source(files=[str(tmp_path / "compose.yaml")]), "shop").environment
    assert (environment["KEY"], environment["OTHER"]) == ("from the shell", "from the file")


@pytest.mark.parametrize("name", ["Shop.2", "shop"])
def test_a_stack_may_have_a_name_that_compose_does_not_know(name: str) -> None:
    model = reader.read(Source(files=["-"], stdin=b"services: {web: {image: x}}"), name)
    assert model.content["networks"]["default"]["name"] == f"{model.project}_default"


@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Z]{1,5}", fullmatch=True),
        st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
        min_size=1,
    )
)
def test_text_comes_through_as_it_was(values: dict[str, str]) -> None:
    escaped = {key: value.replace("$", "$$") for key, value in values.items()}
    text = json.dumps({"services": {"web": {"image": "x", "environment": escaped}}})
    assert (
        reader.read(Source(files=["-"], stdin=text.encode()), "shop").content["services"]["web"]["environment"]
        == values
    )


def test_no_compose_is_an_answer_too(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 1.29.2\n")
    old.chmod(0o755)
    with pytest.raises(Unreadable, match="docker-compose-plugin"):
        reader.compose({"AFTERSWARM_COMPOSE": str(old)})
    new = tmp_path / "new"
    new.write_text("#!/bin/sh\necho v2.40.3-ubuntu\n")
    new.chmod(0o755)
    assert reader.compose({"AFTERSWARM_COMPOSE": str(new)}) == [str(new)]
    assert os.access(new, os.X_OK)
