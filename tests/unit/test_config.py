"""The configuration: every fault names its line, and a change keeps what the operator wrote."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.config import save
from backends.config.load import line_of, load
from backends.config.schema import Config
from backends.errors import ConfigurationError
from backends.model import Asset

GOOD = """\
# kept
[encryption]
recipients = ["age1xyz"]

[vaults.local]
type = "directory"
path = "/srv/mastovault"   # on the NAS

[goals]
database = "6h"

[hosts.social]
address = "mastodon@social.example:22"
vaults = ["local"]
assets = ["redis", "database"]

[hosts.social.goals]
media = "2d"
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "config.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert config.goal("social", Asset.DATABASE) == timedelta(hours=6)
    assert config.goal("social", Asset.MEDIA) == timedelta(days=2)
    assert config.goal("social", Asset.SECRETS) is None
    assert config.hosts["social"].assets == (Asset.DATABASE, Asset.REDIS)
    assert config.vaults_of("social") == ("local",)


def test_no_file_is_an_empty_configuration(tmp_path: Path) -> None:
    assert load(tmp_path / "none.toml").hosts == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[hosts.a\n", "not valid TOML"),
        (GOOD + "\n[hosts.b]\naddress = 'x'\nadress = 'y'\n", "line 22: the key hosts.b.adress is unknown"),
        (GOOD.replace('path = "/srv/mastovault"', "path = 5"), "line 7: vaults.local.path"),
        (GOOD.replace('"6h"', '"soon"'), "line 10: goals.database: a duration looks like"),
        (GOOD.replace('["local"]', '["mars"]'), "names the vault mars, which is not configured"),
        ("[hosts.a]\n", "line 1: hosts.a.address is missing"),
        ("[vaults.v]\ntype='floppy'\n", "line 1: vaults.v"),
        ("[hosts.'../x']\naddress='a'\n", "the host name '../x'"),
        ("x = '\x00'\n", "not valid TOML"),
        ("[hosts.a]\naddress='a'\nassets=[]\n", "line 3: hosts.a.assets: a host needs at least one asset"),
    ],
)
def test_faults_name_their_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(write(tmp_path, text))
    assert says in caught.value.sentence
    assert caught.value.next_step
    assert "\n" not in caught.value.sentence


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"[goals]\n\xff\xfe")
    with pytest.raises(ConfigurationError, match="line 2 is not UTF-8"):
        load(path)
    path.write_bytes(b"#" * (1 << 20) + b"##")
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        load(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=300))
def test_no_text_does_worse_than_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    sentence = ""
    try:
        load(path)
    except ConfigurationError as error:
        sentence = error.sentence
    assert "\x1b" not in sentence


def test_lines_are_found() -> None:
    assert line_of(GOOD, ["hosts", "social", "goals", "media"]) == 18
    assert line_of(GOOD, ["hosts", "social", "nothing"]) == 12
    assert line_of(GOOD, ["nothing"]) == 1


def test_a_change_keeps_comments_and_order(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    path.chmod(0o600)
    save.add_host(path, "art", {"address": "art.example", "become": "sudo"})
    save.set_encryption(path, {"identity": "/key", "recovery": None})
    text = path.read_text()
    assert "# kept" in text
    assert "# on the NAS" in text
    assert load(path).hosts["art"].become == "sudo"
    assert path.stat().st_mode & 0o777 == 0o600
    save.forget_host(path, "social")
    assert set(load(path).hosts) == {"art"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_change_that_would_break_the_file_is_not_made(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    for name, values in (("social", {"address": "x"}), ("bad", {"adress": "x"})):
        with pytest.raises(ConfigurationError):
            save.add_host(path, name, values)
    assert path.read_text() == GOOD
    assert list(tmp_path.iterdir()) == [path]


def test_a_first_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    save.add_vault(path, "local", {"type": "directory", "path": "/srv/x"})
    save.add_host(path, "one", {"address": "local"})
    assert load(path).hosts["one"].address == "local"


def test_the_page_about_the_configuration_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    block = page.partition("```toml\n")[2].partition("```")[0]
    config = Config.model_validate(tomllib.loads(block))
    assert [vault.type for vault in config.vaults.values()] == ["directory", "s3", "sftp"]


def test_retention_is_of_the_most_particular_table() -> None:
    config = Config.model_validate(
        {
            "retention": {"weekly": 2, "media": {"last": 3}},
            "hosts": {"own": {"address": "x", "retention": {"redis": {"last": 1}}}, "other": {"address": "x"}},
        }
    )
    assert config.policy("own", Asset.REDIS)[0].last == 1
    assert config.policy("own", Asset.REDIS)[1]
    assert config.policy("own", Asset.MEDIA) == (config.retention.media, True)
    assert config.policy("other", Asset.DATABASE) == (config.retention, False)
    assert (config.retention.weekly, config.retention.daily) == (2, 0)
    assert Config().policy("unknown", Asset.DATABASE)[0].daily == 7


@pytest.mark.parametrize(
    "retention", [{"daily": 0}, {"last": 0, "within": "0d"}, {"media": {}}, {"media": {"last": 0}}]
)
def test_a_retention_that_keeps_nothing_is_refused(retention: dict[str, object]) -> None:
    for whole in ({"retention": retention}, {"hosts": {"a": {"address": "x", "retention": retention}}}):
        with pytest.raises(ValueError, match="keeps nothing"):
            Config.model_validate(whole)
