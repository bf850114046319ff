"""The recovery identity on paper and on the screen: what is printed is what is read back."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.archive.keys import new_identity
from backends.archive.keys_paper import MARK, fingerprint, groups, qr_matrix, typed_identity
from backends.config.schema import DirectoryVault, S3Vault, SftpVault
from backends.errors import KeyUnavailable
from backends.model import Secret
from backends.operations.recovery_page import place_of, recovery_page, write_page
from tui.cli import key_paper

IDENTITY, RECIPIENT = new_identity()
SVG = "{http://www.w3.org/2000/svg}"
MADE = datetime(2026, 11, 23, tzinfo=UTC)


def of_segno(text: str, border: int) -> list[list[bool]]:
    code = segno.make(text, error="m", micro=False)
    return [[bool(module) for module in row] for row in code.matrix_iter(border=border)]


def test_groups_are_the_identity() -> None:
    assert "".join(groups(IDENTITY)) == IDENTITY.reveal()
    assert groups(IDENTITY)[0] == MARK
    assert {len(group) for group in groups(IDENTITY)[1:-1]} == {4}


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text,
        lambda text: text.lower(),
        lambda text: f"  {text}\n",
        lambda text: " ".join(groups(Secret(text))),
        lambda text: "\n".join(groups(Secret(text))).lower(),
        lambda text: text.removeprefix(MARK),
        lambda text: f"# created: today\n# public key: age1\n{text}\n",
        lambda text: MARK + text.removeprefix(MARK).replace("0", "O").replace("L", "1"),
        lambda text: MARK + text.removeprefix(MARK).replace("L", "I").replace("8", "B"),
    ],
)
def test_however_it_is_typed(spell: object) -> None:
    for _ in range(20):
        identity, _recipient = new_identity()
        assert typed_identity(spell(identity.reveal())) == identity  # type: ignore[operator]


@given(st.integers(0, 57), st.sampled_from("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"))
def test_one_wrong_character_is_always_found(place: int, character: str) -> None:
    at = len(MARK) + place
    text = IDENTITY.reveal()
    if text[at] != character:
        with pytest.raises(KeyUnavailable, match="checksum does not fit") as caught:
            typed_identity(text[:at] + character + text[at + 1 :])
        assert text[20:] not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_is_no_identity(text: str) -> None:
    with pytest.raises(KeyUnavailable):
        typed_identity(text)


def test_the_page_holds_the_identity_as_text_and_as_code() -> None:
    page = recovery_page(
        identity=IDENTITY,
        recipient=RECIPIENT,
        signing_key="c2lnbmVy",
        vaults=[("local", "/srv/<vault> & more"), ("off\x1b[31m", "s3://b")],
        made=MADE,
    )
    root = ElementTree.fromstring(page)
    assert root.tag == f"{SVG}svg"
    assert (root.get("width"), root.get("height")) == ("210mm", "279mm"), "fits A4 and Letter"
    lines = [element.text or "" for element in root.iter(f"{SVG}text")]
    marked = "".join(element.text or "" for element in root.iter(f"{SVG}text") if element.get("class") == "identity")
    assert marked.replace(" ", "") == IDENTITY.reveal()
    assert typed_identity(page) == IDENTITY, "the file itself can be given to --from"
    text = "\n".join(lines)
    for wanted in (
        RECIPIENT,
        "c2lnbmVy",
        "/srv/<vault> & more",
        "2026-11-23",
        "Kept by",
        "Where",
        "pg_restore",
        "age -d -i",
    ):
        assert wanted in text
    assert "\x1b" not in page
    assert matrix_of(root) == of_segno(IDENTITY.reveal(), 4)
    assert all(float(element.get("y", "0")) < 279 for element in root.iter(f"{SVG}text"))


def matrix_of(root: ElementTree.Element) -> list[list[bool]]:
    """The QR code that a page draws, module by module."""
    [path] = root.iter(f"{SVG}path")
    dark = {(int(row), int(column)) for column, row in re.findall(r"M(\d+) (\d+)h1v1h-1z", path.get("d") or "")}
    size = len(of_segno(IDENTITY.reveal(), 4))
    return [[(row, column) in dark for column in range(size)] for row in range(size)]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=200)), max_size=12))
def test_the_page_is_always_well_formed_and_one_sheet(vaults: list[tuple[str, str]]) -> None:
    page = recovery_page(identity=IDENTITY, recipient=RECIPIENT, vaults=vaults, made=MADE)
    root = ElementTree.fromstring(page)
    left = [float(each.get("y", "0")) for each in root.iter(f"{SVG}text") if each.get("x") == "18"]
    assert left == sorted(set(left)), "no line on another"
    assert left[-1] < 279
    assert page.count("AGE-SECRET-KEY-1") == 1


def test_a_page_without_vaults_leaves_room_for_them() -> None:
    page = recovery_page(identity=IDENTITY, recipient=RECIPIENT, made=MADE)
    assert page.count("_" * 60) == 3


def test_places_carry_no_credentials() -> None:
    places = [
        place_of(DirectoryVault(type="directory", path=Path("/srv/v"))),
        place_of(S3Vault(type="s3", bucket="b", prefix="p", endpoint_url="https://me:hunter2@s3.example")),
        place_of(S3Vault(type="s3", bucket="b", region="eu-west-1", access_key_command="echo hunter2")),
        place_of(SftpVault(type="sftp", address="me:hunter2@box:22", path="/x", password_command="echo hunter2")),
    ]
    assert places == ["/srv/v", "s3://b/p at s3.example", "s3://b (eu-west-1)", "sftp://me@box:22/x"]


def test_the_page_is_written_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "page.svg"
    write_page(path, "<svg/>")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["page.svg"]
    with pytest.raises(KeyUnavailable, match="exists and is not overwritten"):
        write_page(path, "other")
    with pytest.raises(KeyUnavailable, match="could not be written"):
        write_page(tmp_path / "page.svg/below", "x")
    assert path.read_text() == "<svg/>"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyUnavailable):
        write_page(tmp_path / "link", "x")
    assert not (tmp_path / "elsewhere").exists()


def modules(lines: list[str], *, ascii_only: bool) -> list[list[bool]]:
    """The matrix that a terminal shows: dark is what is drawn in black on white."""
    if ascii_only:
        assert all(line.isascii() for line in lines)
        cells = [re.findall(r"\x1b\[(40|107)m\x1b\[48;5;\d+m  ", line) for line in lines]
        return [[cell == "40" for cell in row] for row in cells]
    rows: list[list[bool]] = []
    for line in lines:
        assert line.startswith("\x1b[30;107m")
        assert line.endswith("\x1b[0m")
        signs = re.sub(r"\x1b\[[0-9;]*m", "", line)
        rows.append([sign in "▀█" for sign in signs])
        rows.append([sign in "▄█" for sign in signs])
    return rows


@pytest.mark.parametrize(
    ("size", "border", "beside"),
    [((80, 24), 4, True), ((79, 23), 4, True), ((75, 21), 2, True), ((41, 36), 4, False), ((37, 34), 2, False)],
)
def test_the_code_on_the_screen(size: tuple[int, int], border: int, beside: bool) -> None:
    lines, has_room = key_paper.fitted(IDENTITY.reveal(), size, ascii_only=False)
    assert has_room is beside
    shown = modules(lines, ascii_only=False)
    wanted = qr_matrix(IDENTITY.reveal(), border)
    assert shown[: len(wanted)] == wanted == of_segno(IDENTITY.reveal(), border)
    assert not any(map(any, shown[len(wanted) :]))


@pytest.mark.parametrize(
    ("size", "border", "beside"),
    [((120, 43), 4, True), ((82, 60), 4, False), ((80, 60), 2, False), ((74, 52), 2, False)],
)
def test_the_code_in_ascii(size: tuple[int, int], border: int, beside: bool) -> None:
    lines, has_room = key_paper.fitted(IDENTITY.reveal(), size, ascii_only=True)
    assert has_room is beside
    assert modules(lines, ascii_only=True) == qr_matrix(IDENTITY.reveal(), border)


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (41, 40), (37, 34)])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_all_of_it_fits_the_screen(size: tuple[int, int], ascii_only: bool) -> None:
    lines = key_paper.sheet(IDENTITY, size, ascii_only=ascii_only, plain=False)
    bare = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    if "needs" not in bare[0]:
        assert max(map(len, bare)) <= size[0]
        assert len(lines) + 2 <= size[1]
    words = re.sub(r"[▀▄█\s]", "", "".join(bare))
    assert typed_identity(words[words.index(MARK) :].partition("Oneline")[0]) == IDENTITY


@pytest.mark.parametrize(
    ("size", "ascii_only", "plain", "says"),
    [
        ((36, 60), False, False, "needs 75 columns and 21 rows, or 37 and 34; this terminal has 36 and 60"),
        ((80, 20), False, False, "this terminal has 80 and 20"),
        ((74, 24), False, False, "this terminal has 74 and 24"),
        ((73, 60), True, False, "needs 112 columns and 39 rows, or 74 and 52"),
        ((80, 24), True, False, "this terminal has 80 and 24"),
        ((80, 60), False, True, "shows no colours"),
    ],
)
def test_a_terminal_without_room_says_so(size: tuple[int, int], ascii_only: bool, plain: bool, says: str) -> None:
    lines = key_paper.sheet(IDENTITY, size, ascii_only=ascii_only, plain=plain)
    assert says in lines[0]
    assert "\x1b" not in "".join(lines)
    text = "".join(lines)
    assert typed_identity(text[text.index(MARK) :].partition("One line")[0]) == IDENTITY


def test_a_fingerprint_is_short_and_of_the_key() -> None:
    prints = {fingerprint(key) for key in ("QUFB", "QUFC", "QUFB")}
    assert len(prints) == 2
    assert all(re.fullmatch(r"[0-9a-f]{4}( [0-9a-f]{4}){3}", each) for each in prints)


def test_every_identity_fits_the_same_code() -> None:
    sizes = {len(qr_matrix(new_identity()[0].reveal())) for _ in range(5)}
    assert sizes == {41}
