"""The small parts by themselves: where the socket is, what stands in the configuration, messages, cards, code."""

import os
import tempfile
from pathlib import Path

import pytest

from pipelines.warm_runs.cards import Cards
from pipelines.warm_runs.code_watch import read_code
from pipelines.warm_runs.config import NoFolder, WarmRunsConfig, configured, make_place, open_place
from pipelines.warm_runs.launcher import WarmRunLauncher
from pipelines.warm_runs.wire import Conversation, HostAway, Lines, line

ROOT = Path(__file__).resolve().parents[3]


def test_the_deployed_configuration_names_this_launcher_and_folders_and_modules_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text())

    config = configured(tmp_path)

    assert config is not None
    assert config.module == "pipelines.definitions"
    assert all((ROOT / name).is_dir() for name in config.watch)
    assert all((ROOT / (name.replace(".", "/") + ".py")).exists() for name in config.preload)


def test_everything_the_configuration_may_say_is_known_to_dagster() -> None:
    assert sorted(dict(WarmRunLauncher.config_type())) == sorted(WarmRunsConfig.__dataclass_fields__)  # type: ignore[arg-type]  # a dict here


def test_another_launcher_leaves_the_host_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("run_launcher:\n  module: dagster_k8s\n  class: K8sRunLauncher\n")

    assert configured(tmp_path) is None


def test_a_value_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOST_RUNS", "3")

    assert WarmRunsConfig.of({"max_concurrent": {"env": "MOST_RUNS"}}).max_concurrent == 3


@pytest.mark.parametrize("depth", [1, 60])
def test_the_socket_fits_however_long_dagster_home_and_temp_dir_are(
    depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path.joinpath(*["folder"] * depth)
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    place = WarmRunsConfig().place(str(long))

    assert len(os.fsencode(place / "host.sock")) < 104
    assert place == WarmRunsConfig().place(str(long))
    assert place != WarmRunsConfig().place(str(tmp_path))


def test_a_folder_that_others_may_enter_is_not_used(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    link = tmp_path / "link"
    link.symlink_to(make_place(tmp_path / "own"))

    for place in (shared, link, tmp_path / "missing"):
        with pytest.raises(NoFolder, match=str(place)):
            open_place(place)
    assert open_place(tmp_path / "own") == tmp_path / "own"


def test_messages_are_put_together_from_pieces() -> None:
    lines, sent = Lines(), line({"do": "one"}) + line({"do": "two"})

    heard = [message for byte in range(len(sent)) for message in lines.feed(sent[byte : byte + 1])]

    assert heard == [{"do": "one"}, {"do": "two"}]


def test_what_is_no_message_is_refused() -> None:
    for nonsense, why in ((b"GET /\n", "Expecting value"), (b"[1]\n", "no object"), (b"x" * 2_000_000, "too long")):
        with pytest.raises(ValueError, match=why):
            Lines().feed(nonsense)


def test_nobody_at_the_socket_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(HostAway, match=str(tmp_path)), Conversation(tmp_path):
        pass


def test_a_card_is_laid_once_held_by_a_process_and_torn_up(tmp_path: Path) -> None:
    cards = Cards(tmp_path)
    assert cards.lay("run-1", "reference")
    assert not cards.lay("run-1", "another")
    assert cards.read("run-1") == {"instance_ref": "reference"}
    assert not cards.is_held("run-1")

    told, tell = os.pipe()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        cards.hold("run-1")
        os.write(tell, b"held")
        os.close(go)
        os.read(wait, 1)
        os._exit(0)
    os.read(told, 4)
    assert cards.is_held("run-1")
    assert cards.read("run-1")["pid"] == child

    os.close(go)
    os.waitpid(child, 0)
    assert not cards.is_held("run-1")
    assert cards.all() == ["run-1"]
    cards.tear_up("run-1")
    assert cards.all() == []


def test_a_run_id_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no run id"):
        Cards(tmp_path).lay("../host", "reference")


def test_code_is_new_when_a_file_changes_comes_or_goes_and_not_when_it_is_compiled(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    source = package / "inner" / "module.py"
    source.write_text("one = 1\n")
    seen = [read_code([package])]

    (package / "inner" / "__pycache__").mkdir()
    (package / "inner" / "__pycache__" / "module.pyc").write_text("")
    assert read_code([package]) == seen[0]
    source.write_text("one = 11\n")
    seen.append(read_code([package]))
    (package / "new.sql").write_text("select 1")
    seen.append(read_code([package]))
    source.unlink()
    seen.append(read_code([package, tmp_path / "missing"]))

    assert len(set(seen)) == 4
