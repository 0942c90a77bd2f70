"""The README is true: every command in it exists, and every path it names is there."""

import re
import shlex
from pathlib import Path

import pytest

from resources.payment_events import HANDLERS
from tests.cli.typed import parse

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _commands(document: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_command_has_its_target(document: Path) -> None:
    for command in _commands(document):
        words = shlex.split(command)
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= _targets(), command


@pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_numnaroad_command_and_option_exists(document: Path) -> None:
    for command in _commands(document):
        if shlex.split(command)[0].endswith("numnaroad"):
            parse(command)


@pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_readme_names_every_payment_event_we_act_on() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [kind for kind in HANDLERS if f"`{kind}`" not in readme] == []
