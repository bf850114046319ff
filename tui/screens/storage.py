"""The vaults: where backups are kept, how much room is left, and how the last look at each went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.containers import Container
from textual.timer import Timer
from textual.widget import Widget

from backends.operations.storage import StorageRow
from tui import actions, vault_words
from tui.screens.base import AreaScreen
from tui.screens.vault import VaultScreen
from tui.vaults import VaultDetail
from tui.widgets import say
from tui.widgets.notice import Notice
from tui.widgets.panel import Panel
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, words
from tui.widgets.vault_pane import vault_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultRow:
    """One vault."""

    key: str
    vault: StorageRow


class StorageScreen(AreaScreen):
    """The fourth area."""

    place = "storage"
    BINDINGS: ClassVar = actions.bindings("storage")
    CSS = """
    #storage-body { height: 1fr; layout: vertical; }
    #storage-table { height: 6; }
    #storage-pane { height: 1fr; }
    #storage-none { display: none; }
    StorageScreen.-none #storage-body { display: none; }
    StorageScreen.-none #storage-none { display: block; }
    StorageScreen.-wide #storage-body { layout: horizontal; }
    StorageScreen.-wide #storage-table { width: 1fr; height: 1fr; }
    StorageScreen.-wide #storage-pane { width: 44; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._wanted = ""
        self._asks: Timer | None = None

    def body(self) -> Iterable[Widget]:
        """The list, and what is known of the vault under the cursor."""
        yield Container(
            Table(self._columns(), self._cells, id="storage-table"),
            Panel("Vault", id="storage-pane"),
            id="storage-body",
        )
        yield Notice(id="storage-none")

    def on_mount(self) -> None:
        """Begin in the list."""
        super().on_mount()
        self.table.focus()

    @property
    def table(self) -> Table[VaultRow]:
        """The list."""
        return self.query_one("#storage-table", Table)

    @property
    def waiting(self) -> bool:
        """Whether the content of the vault under the cursor is still being read."""
        return bool(self._wanted)

    def draw(self) -> None:
        """Draw the list and the pane."""
        seen = self.mastovault.seen
        if seen is None:
            return
        self.set_class(not seen.storage, "-none")
        self.query_one("#storage-none", Notice).show(self._nothing())
        wide = self.app.size.width >= 100
        # Of a list that is shorter than its part of the screen, the room goes to the pane.
        self.table.styles.height = "1fr" if wide else min(8, len(seen.storage) + 1)
        self.table.set_columns(self._columns())
        self.table.show([VaultRow(key=one.name, vault=one) for one in seen.storage])

    def crumbs(self) -> tuple[Line, Line]:
        """Where we are, and that nothing is kept in the clear."""
        left: Line = [(" 4 ", "key"), ("Storage", "strong"), ("     ", ""), (self.asking(), "quiet")]
        return [*left, ("   every vault is encrypted", "quiet")], self.running()

    def footer(self) -> Sequence[actions.Action]:
        """Without a vault there is nothing to open."""
        offered = actions.footer(self.place)
        seen = self.mastovault.seen
        if seen is None or seen.storage:
            return offered
        return [entry for entry in offered if entry.id in {"add_vault", "areas", "help", "back"}]

    def _columns(self) -> Sequence[Column]:
        return [
            Column("name", "Name", 10, gap=1),
            Column("where", "Where", 0, gap=1),
            Column("site", "Site", 8, gap=1),
            Column("used", "Used / free", 13, gap=1),
            Column("checked", "Checked", 7, gap=1),
            Column("keys", "Keys", 4, gap=1),
            Column("state", "State", 12, gap=0),
        ]

    def _cells(self, row: VaultRow) -> Sequence[Line]:
        one, app = row.vault, self.mastovault
        status, checked = one.status, app.checked.get(one.name)
        at = checked.at if checked is not None else status.checked_at
        ours = app.seen.config.encryption.recipients if app.seen is not None else ()
        keys = len(status.recipients or ours)
        return [
            words(one.name, "strong"),
            words(one.where, "quiet"),
            words("off-site" if one.offsite else "here", "" if one.offsite else "quiet"),
            words(vault_words.used_free(status), "quiet" if status.error else "warn" if vault_words.tight(one) else ""),
            words(say.age(at, app.now()) if at else "–", "" if at else "quiet"),
            words(str(keys) if keys else "NONE", "" if keys else "warn"),
            [vault_words.state(one, checked)],
        ]

    @on(Table.Moved)
    def show_vault(self) -> None:
        """Show what is known of the vault under the cursor."""
        app, row = self.mastovault, self.table.current
        if row is None or app.seen is None:
            return
        detail = app.vault_details.get(row.key)
        if detail is None and row.key != self._wanted:
            self._want(row.key)
        panel = self.query_one("#storage-pane", Panel)
        panel.name_it(row.key)
        panel.show(
            vault_lines(
                row.vault,
                app.seen.config,
                detail,
                app.checked.get(row.key),
                now=app.now(),
                interval=app.feed.interval,
                cells=panel.inner_width - 2,
            )
        )

    def _want(self, name: str) -> None:
        # Holding an arrow key down must not read the content of every vault on the way.
        self._wanted = name
        if self._asks is not None:
            self._asks.stop()
        self._asks = self.set_timer(0.1, lambda: self.mastovault.ask_vault(name))

    def vault_arrived(self, detail: VaultDetail | None) -> None:
        """Show what was read of a vault; None when it cannot be read."""
        if detail is None or detail.name == self._wanted:
            self._wanted = ""
        self.show_vault()

    @on(Table.Chosen)
    def open_clicked(self) -> None:
        """Open a row clicked twice."""
        self.do_open_vault()

    def do_open_vault(self) -> None:
        """Open the vault."""
        if self.table.current is not None:
            self.app.push_screen(VaultScreen(self.table.current.key))

    def do_forget_vault(self) -> None:
        """Take the vault out of the configuration, when its name was typed."""
        if self.table.current is not None:
            self.mastovault.forget_vault(self.table.current.vault)

    def do_check_vault(self) -> None:
        """Prove what the vault can do."""
        if self.table.current is not None:
            self.mastovault.check_vault(self.table.current.key)

    def do_sync(self) -> None:
        """Plan to copy there what it lacks."""
        if self.table.current is not None:
            self.mastovault.open_sync(self.table.current.key)

    def do_prune(self) -> None:
        """Plan to remove what no policy keeps, in all vaults."""
        self.mastovault.open_prune()

    def do_copy(self) -> None:
        """Copy where the vault is."""
        if self.table.current is not None:
            self.mastovault.copy(self.table.current.vault.where)

    def _nothing(self) -> Sequence[Line]:
        seen = self.mastovault.seen
        lines: list[Line] = [[("No vault yet. Nothing can be backed up.", "strong")], []]
        if not self.mastovault.read_only:
            lines.append([("a", "key"), (" adds one: a directory, a bucket, or another machine.", "")])
        if seen is not None and not seen.config.encryption.recipients:
            lines += [[], [("No key yet either: ", "warn"), ("mastovault key new", "accent"), (" makes one.", "warn")]]
        return lines
