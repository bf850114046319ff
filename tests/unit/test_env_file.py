"""The grammar of `.env.production`, as gem dotenv 3.2 reads it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import DiscoveryFailed
from backends.mastodon.env_file import MAX_BYTES, MAX_WARNINGS, parse
from backends.model import Secret


def values(text: str, **defined: str) -> dict[str, str]:
    given = {name: Secret(value) for name, value in defined.items()}
    return {name: value.reveal() for name, value in parse(text.encode(), defined=given).values.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("A: 1", "1"),
        ("  A = 1  ", "1"),
        ("A=", ""),
        ("A", ""),
        ("A='single $B \\n'", "single $B \\n"),
        ('A="with \\"quotes\\""', 'with "quotes"'),
        ('A="first\nsecond"', "first\nsecond"),
        ("A=x # comment", "x"),
        ("A=x#comment", "x"),
        ("A='x#y' # comment", "x#y"),
        ('A="x#y"', "x#y"),
        ("A=a\\ b", "a b"),
        ('A="a\\nb"', "a\\nb"),
        ('A="\\$HOME"', "$HOME"),
        ("A='it\\'s'", "it\\'s"),
        ('A="x" y', '"x" y'),
        ("A=x=y", "x=y"),
        ("A=\r\nB=2", ""),
        ("A=1\rB=2", "1"),
        ("\ufeffA=1", "1"),
        ("A=1\nA=2", "2"),
    ],
)
def test_value(text: str, value: str) -> None:
    assert values(text)["A"] == value


def test_what_is_no_assignment_is_passed_over() -> None:
    assert values("# A=1\nA-B=1\njust words\nA:1\n=x\nC=3") == {"C": "3"}


def test_variables_are_expanded_within_the_file_and_what_is_set_already() -> None:
    assert values("A=1\nB=$A-${A}-$C\nD=\"${A}\"\nE='$A'\nF=\\$A", C="3") == {
        "A": "1",
        "B": "1-1-3",
        "D": "1",
        "E": "$A",
        "F": "$A",
    }


def test_what_is_set_already_wins() -> None:
    assert values("A=file\nB=$A", A="process") == {"A": "process", "B": "process"}


def test_legacy_line_breaks() -> None:
    assert values('DOTENV_LINEBREAK_MODE=legacy\nA="a\\nb"')["A"] == "a\nb"


def test_an_unknown_variable_is_named_by_the_key_that_uses_it() -> None:
    parsed = parse(b"DB_PASS=pa$word")
    assert parsed.values["DB_PASS"].reveal() == "pa"
    assert parsed.warnings == ("DB_PASS in .env.production refers to a setting that is defined nowhere before",)


def test_a_command_is_never_run_but_named(tmp_path: object) -> None:
    marker = f"{tmp_path}/ran"
    parsed = parse(f"SECRET_KEY_BASE=$(touch {marker})\nB=2".encode())
    assert parsed.computed == {"SECRET_KEY_BASE"}
    assert [each for each in parsed.warnings if "SECRET_KEY_BASE" in each and "not run" in each]
    assert marker not in "".join(parsed.warnings)
    assert parsed.values["B"].reveal() == "2"


@pytest.mark.parametrize(
    ("text", "value"), [("A='$(x)'", "$(x)"), ("A=\\$(x)", "$(x)"), ("A=\\$(x", "\\$(x"), ("A=\\$(x(y))", "$(x(y))")]
)
def test_a_command_in_single_quotes_or_escaped_is_text(text: str, value: str) -> None:
    parsed = parse(text.encode())
    assert not parsed.computed
    assert not parsed.warnings
    assert parsed.values["A"].reveal() == value


def test_a_later_definition_without_a_command_is_known() -> None:
    assert not parse(b"A=$(x)\nA=1").computed


def test_nul_is_said() -> None:
    parsed = parse(b"A=1\nB=x\0y")
    assert parsed.warnings == (".env.production holds a NUL byte (line 2)",)
    assert "\0" not in parsed.values["B"].reveal()


def test_not_utf8_is_said() -> None:
    parsed = parse(b"A=1\nB=\xff\xfe")
    assert parsed.warnings == (".env.production is not UTF-8 (line 2); Mastodon does not start with it",)
    assert parsed.values["A"].reveal() == "1"


def test_ten_megabytes_are_refused_with_one_sentence() -> None:
    with pytest.raises(DiscoveryFailed) as caught:
        parse(b"A=1\n" * 2_500_000)
    assert caught.value.sentence.startswith(".env.production is 10.0 MB large")
    assert caught.value.next_step


def test_export_without_a_value_is_said() -> None:
    assert parse(b"export A").warnings == (".env.production exports A, which has no value",)
    assert not parse(b"A=1\nexport A").warnings


def test_warnings_are_bounded() -> None:
    assert len(parse(b"A=$(x)\n" * 10_000).warnings) == MAX_WARNINGS + 1


@pytest.mark.parametrize(
    "piece",
    ['A="', "A='", 'A="\\"', "A=\n", "A=$(", "A=$(x)\\", "A: ", '"', "\n", "export ", "A", "A=\\$((", "A=$A$A\n"],
)
def test_a_hostile_file_is_read_in_linear_time(piece: str) -> None:
    parse((piece * (MAX_BYTES // len(piece)))[:MAX_BYTES].encode())


@pytest.mark.parametrize("text", ["A=xxxxxxxx\n" + "A=$A$A\n" * 1000, "A=" + "x" * 1000 + "\nB=" + "$A" * 100_000])
def test_a_file_that_grows_without_end_is_cut(text: str) -> None:
    parsed = parse(text.encode())
    assert parsed.computed
    assert sum(len(value.reveal()) for value in parsed.values.values()) < 10 * MAX_BYTES


@given(st.binary(max_size=400))
def test_any_bytes_are_read(content: bytes) -> None:
    parse(content)


_PIECES = st.sampled_from(
    ["A", "B", "export ", "=", ": ", " ", "\n", '"', "'", "\\", "#", "$", "$A", "${B}", "$(", ")", "\r", "x", "\0", "é"]
)


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_any_text_of_the_grammar_is_read_and_no_warning_shows_a_value(text: str) -> None:
    parsed = parse(text.encode())
    assert all(isinstance(value, Secret) for value in parsed.values.values())
    assert all("\n" not in warning for warning in parsed.warnings)


_NAMES = st.text(string.ascii_uppercase + string.digits + "_", min_size=1, max_size=20)
_PLAIN = st.text(string.ascii_letters + string.digits + "+/=_-:@.,%", min_size=1, max_size=60)


@given(st.dictionaries(_NAMES, _PLAIN, max_size=20), st.sampled_from(["{}={}", "export {}={}", "{}='{}'", '{}="{}"']))
def test_what_the_set_up_writes_is_read_back(settings: dict[str, str], form: str) -> None:
    text = "# Generated with mastodon:setup\n\n" + "".join(
        form.format(name, value) + "\n" for name, value in settings.items()
    )
    read = values(text)
    assert read == settings
    assert list(read) == list(settings)


@given(st.dictionaries(_NAMES, st.text(st.characters(codec="utf-8", exclude_characters="'\r\0"))))
def test_single_quotes_keep_everything(settings: dict[str, str]) -> None:
    # A backslash before the closing quote would keep it open.
    settings = {name: value for name, value in settings.items() if not value.endswith("\\")}
    assert values("".join(f"{name}='{value}'\n" for name, value in settings.items())) == settings
