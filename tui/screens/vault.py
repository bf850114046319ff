"""One vault: how it is, what it holds by host and asset, and its snapshots, those that it lacks among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.widget import Widget

from backends.catalog.usage import VaultUsage
from backends.model import Asset, SnapshotInfo
from backends.operations.storage import StorageRow
from tui import actions, vault_words
from tui.screens.asset import AssetScreen
from tui.screens.base import AreaScreen
from tui.vaults import VaultDetail
from tui.widgets import say
from tui.widgets.lines import Lines, Rule
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, Piece, words, wrapped
from tui.widgets.vault_pane import sizes_of, trouble

ALL = "all hosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """What a vault holds of one host, or of all of them."""

    key: str
    bytes: tuple[int, ...]
    snapshots: int
    lacks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRow:
    """One snapshot that the vault holds, or lacks."""

    key: str
    info: SnapshotInfo
    here: bool


class VaultScreen(AreaScreen):
    """Opened from a row of the storage screen."""

    place = "vault"
    BINDINGS: ClassVar = actions.bindings("vault")
    CSS = """
    #vault-head { margin: 0 0 1 0; }
    #vault-hosts { height: 5; }
    #vault-held { height: 1fr; }
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.vault = name

    def body(self) -> Iterable[Widget]:
        """The words, hosts by asset, and the snapshots of the host under the cursor."""
        yield Lines(id="vault-head")
        yield Table(self._host_columns(), self._host_cells, id="vault-hosts")
        yield Rule(id="vault-rule")
        yield Table(self._held_columns(), self._held_cells, id="vault-held")

    def on_mount(self) -> None:
        """Begin in the hosts."""
        super().on_mount()
        self.hosts.focus()
        if self.detail is None:
            self.mastovault.ask_vault(self.vault)

    @property
    def hosts(self) -> Table[HostRow]:
        """What it holds by host."""
        return self.query_one("#vault-hosts", Table)

    @property
    def held(self) -> Table[HeldRow]:
        """The snapshots."""
        return self.query_one("#vault-held", Table)

    @property
    def detail(self) -> VaultDetail | None:
        """What was read of its content."""
        return self.mastovault.vault_details.get(self.vault)

    @property
    def row(self) -> StorageRow | None:
        """How it is now; None when it is not configured any more."""
        seen = self.mastovault.seen
        return next((one for one in (seen.storage if seen else ()) if one.name == self.vault), None)

    @property
    def waiting(self) -> bool:
        """Whether its content is still being read."""
        return self.detail is None and self.vault in self.mastovault.reading_vaults

    def vault_arrived(self, detail: VaultDetail | None) -> None:
        """Show what was read."""
        if detail is None or detail.name == self.vault:
            self.refresh_picture()

    def draw(self) -> None:
        """Draw the words and both lists."""
        detail, row = self.detail, self.row
        if detail is None:
            self.mastovault.ask_vault(self.vault)
        self.query_one("#vault-head", Lines).show(self._head())
        rows = self._host_rows(detail, row.usage) if detail is not None and row is not None else []
        self.hosts.styles.height = min(max(2, self.app.size.height // 3 - 2), len(rows) + 1)
        self.hosts.set_columns(self._host_columns())
        self.hosts.show(rows)
        self._draw_held()

    def crumbs(self) -> tuple[Line, Line]:
        """Where we are, and how the vault is."""
        left: Line = [(" 4 ", "key"), ("Storage › ", "quiet"), (self.vault, "strong")]
        if self.row is None:
            return left, ()
        return left, [vault_words.state(self.row, self.mastovault.checked.get(self.vault)), (" ", "")]

    def _head(self) -> Sequence[Line]:
        app, row = self.mastovault, self.row
        if row is None or app.seen is None:
            return [[(" This vault is not configured any more.", "warn")]]
        lines: list[Line] = [[(f" {vault_words.kind(row)}, {row.where}", "quiet"), ("   ", ""), vault_words.site(row)]]
        lines += [[(" ", ""), *line] for line in trouble(row, app.feed.interval, app.now(), app.size.width - 2)]
        grown, month = vault_words.growth(row.usage, app.now()), vault_words.price(row)
        room: list[Piece] = [(f" {vault_words.used_free(row.status)} used / free", "")]
        room += [(f"   {text}", "") for text in (grown, month) if text]
        config = app.seen.config
        parts = [vault_words.encrypted(row.status, config)]
        parts += vault_words.settings(row.status, config.vaults.get(self.vault))
        text = wrapped(", ".join(word for word, _style in parts), app.size.width - 2)
        kept: list[Line] = [[(f" {part}", parts[0][1])] for part in text]
        return [*lines, room, *kept, self._proof(row)]

    def _proof(self, row: StorageRow) -> Line:
        app = self.mastovault
        checked, line = app.checked.get(self.vault), list[Piece]()
        if checked is not None:
            line += [(" checked ", "quiet"), (say.ago(checked.at, app.now()), ""), (" ", "")]
            line += [vault_words.check_word(checked), ("  ", "")]
        if self.detail is None:
            return [*line, (" reading what it holds…", "run")]
        line += [(" verified ", "quiet"), (say.ago(row.usage.verified_at, app.now()), "")]
        line += [("   proven ", "quiet"), (say.ago(row.usage.drilled_at, app.now()), "")]
        if not any(row.usage.days):
            return line
        days = say.spark(row.usage.days, 30 if app.size.width >= 100 else 15)
        return [*line, (f"   {len(days)} days ", "quiet"), *days]

    def _host_rows(self, detail: VaultDetail, usage: VaultUsage) -> list[HostRow]:
        sizes = sizes_of(usage)
        held, lacks = Counter(one.host for one in detail.snapshots), Counter(one.host for one in detail.lacks)
        rows = [
            HostRow(
                key=host,
                bytes=tuple(sizes.get(host, {}).get(asset, 0) for asset in Asset),
                snapshots=held[host],
                lacks=lacks[host],
            )
            for host in [*sizes, *sorted((set(held) | set(lacks)) - set(sizes))]
        ]
        total = HostRow(
            key=ALL,
            bytes=tuple(sum(row.bytes[place] for row in rows) for place in range(len(Asset))),
            snapshots=len(detail.snapshots),
            lacks=len(detail.lacks),
        )
        return [total, *rows]

    def _host_columns(self) -> Sequence[Column]:
        return [
            Column("host", "Host", 16, gap=1),
            *(Column(asset.value, asset.value.capitalize(), 8, "right", gap=1) for asset in Asset),
            Column("sum", "All", 6, "right"),
            Column("count", "Snapshots", 9, "right"),
            Column("lacks", "Lacks", 0, gap=0),
        ]

    def _host_cells(self, row: HostRow) -> Sequence[Line]:
        sizes = [words(say.size(size) if size else "–", "" if size else "quiet") for size in row.bytes]
        lacks = f"{say.count(row.lacks)} ▲" if row.lacks else "none ✓"
        return [
            words(row.key, "strong"),
            *sizes,
            words(say.size(sum(row.bytes)), "strong"),
            words(say.count(row.snapshots)),
            words(lacks, "warn" if row.lacks else "ok"),
        ]

    def _draw_held(self) -> None:
        detail, row = self.detail, self.hosts.current
        rows: list[HeldRow] = []
        if detail is not None and row is not None:
            for here, found in ((True, detail.snapshots), (False, detail.lacks)):
                rows += [
                    HeldRow(key=f"{here}/{one.id}", info=one, here=here) for one in found if row.key in {ALL, one.host}
                ]
            rows.sort(key=lambda one: one.info.at, reverse=True)
        self.held.set_columns(self._held_columns())
        self.held.show(rows)
        name = row.key if row is not None else ""
        self.query_one("#vault-rule", Rule).show([("snapshots of ", "title"), (name, "title")])

    def _held_columns(self) -> Sequence[Column]:
        return [
            Column("when", "When (UTC)", 11, gap=1),
            Column("what", "Snapshot of", 24 if self.app.size.width < 100 else 34, gap=1),
            Column("size", "Size", 5, "right", gap=1),
            Column("verified", "Verified", 8, gap=1),
            Column("proven", "Proven", 7, gap=1),
            Column("note", "Here", 0, gap=0),
        ]

    def _held_cells(self, row: HeldRow) -> Sequence[Line]:
        info = row.info
        tone = "" if row.here else "quiet"
        return [
            words(say.day_time(info.at), tone),
            words(f"{info.host}/{info.asset}", "strong" if row.here else "quiet"),
            words(say.size(info.bytes), tone),
            words(
                f"✓ {info.verified_at:%m-%d}" if info.verified_at else "not yet", "ok" if info.verified_at else "quiet"
            ),
            words(f"✓ {info.drilled_at:%m-%d}" if info.drilled_at else "never", "ok" if info.drilled_at else "quiet"),
            [self._note(row)],
        ]

    def _note(self, row: HeldRow) -> Piece:
        info, seen = row.info, self.mastovault.seen
        if not row.here:
            if self.vault in info.damaged:
                return "DAMAGED ▲▲ here, good elsewhere", "crit"
            return f"LACKING ▲ in {', '.join(info.vaults)}", "warn"
        if self.vault in info.damaged or info.verify_failed:
            return "DAMAGED ▲▲", "crit"
        if self.vault in info.altered:
            return "ANOTHER MANIFEST ▲▲ here", "crit"
        others = [name for name in info.vaults if name != self.vault]
        if seen is not None and (note := self.mastovault.distrust(info)):
            return f"{note} ▲", "warn"
        return (f"also in {', '.join(others)}", "") if others else ("the only copy ▲", "warn")

    @on(Table.Moved, "#vault-hosts")
    def show_host(self) -> None:
        """Show the snapshots of the host under the cursor."""
        self._draw_held()

    @on(Table.Chosen, "#vault-held")
    def open_clicked(self) -> None:
        """Open a row clicked twice."""
        self.do_open_vault()

    def do_open_vault(self) -> None:
        """In the hosts, go to the snapshots; there, open the asset."""
        row = self.held.current
        if self.hosts.has_focus:
            self.held.focus()
        elif row is not None:
            self.app.push_screen(AssetScreen(row.info.host, row.info.asset))

    def do_check_vault(self) -> None:
        """Prove what the vault can do."""
        self.mastovault.check_vault(self.vault)

    def do_sync(self) -> None:
        """Plan to copy there what it lacks."""
        self.mastovault.open_sync(self.vault)

    def do_prune(self) -> None:
        """Plan to remove from it what no policy keeps."""
        self.mastovault.open_prune(vaults=[self.vault])

    def do_copy(self) -> None:
        """Copy the name of the snapshot, or where the vault is."""
        row = self.held.current
        if self.held.has_focus and row is not None:
            self.mastovault.copy(row.info.id)
        elif self.row is not None:
            self.mastovault.copy(self.row.where)
