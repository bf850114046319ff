"""Page 1: which copy, and which assets of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult

from backends.model import Asset, SnapshotInfo
from tui.widgets import say
from tui.widgets.lines import Lines, Rule
from tui.widgets.notice import Notice
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, Piece, words, wrapped
from tui.wizard.page import Page
from tui.wizard.proof import doubt_of, proof_of

if TYPE_CHECKING:
    from backends.operations.choose import RestorePoint


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """One restore point."""

    key: str
    point: RestorePoint


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRow:
    """One asset of the chosen point."""

    key: str
    asset: Asset
    info: SnapshotInfo | None
    own: bool
    chosen: bool


class CopyPage(Page):
    """Restore points above, the assets of the one under the cursor below."""

    DEFAULT_CSS = """
    CopyPage #copy-points { height: 1fr; }
    CopyPage #copy-assets { height: 5; }
    CopyPage #copy-none { display: none; }
    CopyPage.-none > * { display: none; }
    CopyPage.-none > #copy-none { display: block; }
    """

    wished: set[Asset]

    def compose(self) -> ComposeResult:
        """Two lists and a line about the choice."""
        self.wished = set()
        yield Table(self._point_columns(), self._point_cells, id="copy-points")
        yield Rule(id="copy-rule")
        yield Table(self._asset_columns(), self._asset_cells, id="copy-assets")
        yield Lines(id="copy-note")
        yield Notice(id="copy-none")

    @property
    def points(self) -> Table[PointRow]:
        """The restore points."""
        return self.query_one("#copy-points", Table)

    @property
    def assets(self) -> Table[AssetRow]:
        """The assets of the point under the cursor."""
        return self.query_one("#copy-assets", Table)

    def enter(self) -> None:
        """Begin in the points."""
        self.points.focus()

    def fill(self, snapshot: str) -> None:
        """The points have been read: put the cursor on the one that holds a snapshot, or on the newest."""
        self.wished = set(self.draft.assets)
        self.draw()
        # What may be relied on comes first, although something newer may be there.
        trusted = next((row for row in self.points.items if row.point.trusted), None)
        if trusted is not None:
            self.points.move_to(trusted.key)
        for row in self.points.items:
            if any(info.id == snapshot for info in row.point.own.values()):
                self.points.move_to(row.key)
        self._take_point()

    def draw(self) -> None:
        """Draw both lists."""
        found = self.wizard.points
        self.set_class(not found, "-none")
        self.query_one("#copy-none", Notice).show(self._nothing())
        self.points.set_columns(self._point_columns())
        self.points.show([PointRow(key=f"{point.run} {point.trusted}", point=point) for point in self._wanted()])
        self.assets.set_columns(self._asset_columns())
        self.assets.show(list(self._asset_rows()))
        self.query_one("#copy-rule", Rule).show([("bring back", "title")], [(self._tally(), "strong")])
        self.query_one("#copy-note", Lines).show(self._notes())

    def _wanted(self) -> Sequence[RestorePoint]:
        """Of one asset, only the points that hold a copy of their own of it."""
        found = self.wizard.points or ()
        only = self.draft.assets if len(self.draft.assets) == 1 else set()
        kept = [point for point in found if not only or only & set(point.own)]
        chosen = self.draft.point
        # The one that was chosen stays, whatever is chosen of it.
        return [point for point in found if point in kept or point is chosen] if kept else found

    def _asset_rows(self) -> Iterable[AssetRow]:
        point = self.draft.point
        if point is None:
            return
        for asset in Asset:
            yield AssetRow(
                key=asset.value,
                asset=asset,
                info=point.snapshots.get(asset),
                own=asset in point.own,
                chosen=asset in self.draft.assets,
            )

    def _point_columns(self) -> Sequence[Column]:
        wide = self.app.size.width >= 100
        columns = [
            Column("when", "When (UTC)", 11),
            Column("age", "Age", 7, gap=1),
            Column("holds", "Holds", 28, gap=1),
        ]
        columns.append(Column("size", "Size", 5, "right"))
        if wide:
            columns.append(Column("vaults", "In", 24))
        return [*columns, Column("proof", "Proof", 0, gap=0)]

    def _point_cells(self, row: PointRow) -> Sequence[Line]:
        point, now = row.point, self.wizard.mastovault.now()
        holds: list[Piece] = []
        for asset in Asset:
            if asset in point.own:
                gap = " " if holds else ""
                holds.append((f"{gap}{asset.value}", "" if asset in self.draft.assets else "quiet"))
        cells: list[Line] = [
            words(say.day_time(point.at), "strong" if point is self.draft.point else ""),
            words(say.age(point.at, now)),
            holds,
            words(say.size(sum(info.bytes for info in point.own.values()))),
        ]
        if self.app.size.width >= 100:
            cells.append(words(", ".join(_vaults(point.own.values())), "quiet"))
        return [*cells, [self._proof(self._shown(point))]]

    def _proof(self, found: Sequence[SnapshotInfo]) -> Piece:
        """Who wrote it comes before what was proven of it."""
        app = self.wizard.mastovault
        return doubt_of(found, app.trust) or proof_of(found, app.now())

    def _shown(self, point: RestorePoint) -> Sequence[SnapshotInfo]:
        """The copies whose proof counts: those of the chosen assets."""
        return [info for asset, info in point.own.items() if asset in self.draft.assets] or list(point.own.values())

    def _asset_columns(self) -> Sequence[Column]:
        columns = [
            Column("asset", "", 13, gap=1),
            Column("when", "From (UTC)", 11),
            Column("age", "Age", 7, gap=1),
            Column("size", "Size", 5, "right"),
        ]
        if self.app.size.width >= 100:
            columns.append(Column("vaults", "In", 24))
        return [*columns, Column("proof", "Proof", 0, gap=0)]

    def _asset_cells(self, row: AssetRow) -> Sequence[Line]:
        now = self.wizard.mastovault.now()
        box = "[x]" if row.chosen else "[ ]"
        name: Line = [
            (f"{box} ", "accent" if row.chosen else "quiet"),
            (row.asset.value, "strong" if row.chosen else ""),
        ]
        info = row.info
        if info is None:
            return [[("    ", ""), (row.asset.value, "quiet")], words("no copy in this restore point", "quiet")]
        cells: list[Line] = [
            name,
            words(say.day_time(info.at), "" if row.own else "warn"),
            words(say.age(info.at, now)),
            words(say.size(info.bytes)),
        ]
        if self.app.size.width >= 100:
            cells.append(words(", ".join(info.vaults), "quiet"))
        return [*cells, [self._proof([info])]]

    def _tally(self) -> str:
        copies = self.draft.copies
        if not copies:
            return "nothing is chosen"
        size = say.size(sum(info.bytes for info in copies.values()))
        return f"{len(copies)} of {len(Asset)} assets, {size}"

    def _notes(self) -> Sequence[Line]:
        point = self.draft.point
        if point is None:
            return [[]]
        older = [a for a, info in self.draft.copies.items() if a not in point.own and info.at < point.at]
        app = self.wizard.mastovault
        for info in self.draft.copies.values():
            if not app.trust(info).good:
                text = f"▲ {info.asset}: {app.distrust(info)}. To use it, page 4 asks for the word {app.trust(info)}."
                return [[(f" {part}", "high")] for part in wrapped(text, self.app.size.width - 2)]
            if info.altered:
                return [[(f" ▲ {info.asset}: {app.distrust(info)}; the trusted one is used.", "warn")]]
        if self.draft.redis_is_older:
            return [[(" Redis is older than the database: page 2 can start it empty instead.", "warn")]]
        if older:
            names = " and ".join(asset.value for asset in older)
            return [[(f" {names}: the newest good copy from before this restore point.", "quiet")]]
        return [[(" Nothing on any host changes before the last button of page 4.", "quiet")]]

    def _nothing(self) -> Sequence[Line]:
        if self.wizard.points is None:
            return [[("reading the restore points…", "quiet")]]
        return [
            [(f"No good copy of {self.draft.host} is in any vault.", "strong")],
            [],
            [("esc leaves, b backs up. R in Storage asks the vaults again.", "quiet")],
        ]

    @on(Table.Moved, "#copy-points")
    def _moved(self) -> None:
        self._take_point()

    @on(Table.Chosen, "#copy-assets")
    def _clicked(self) -> None:
        self.choose()

    def _take_point(self) -> None:
        row = self.points.current
        if row is not None and row.point is not self.draft.point:
            self.draft.point = row.point
            # A point that lacks a wished asset must not make the wish forgotten: the next one may hold it.
            self.draft.assets = self.wished & set(row.point.snapshots) or set(row.point.own)
            self.draw()

    def choose(self) -> None:
        """Choose the asset under the cursor, or leave it; in the upper list, go to the lower one."""
        if self.points.has_focus:
            self.assets.focus()
            return
        row = self.assets.current
        if row is not None and row.info is not None:
            self.draft.assets ^= {row.asset}
            self.wished = set(self.draft.assets)
            self.draw()

    def whole(self) -> None:
        """Choose all assets, or only the one under the cursor again."""
        point = self.draft.point
        if point is None:
            return
        every = set(point.snapshots)
        row = self.assets.current
        only = row.asset if row is not None and row.info is not None else next(iter(point.own))
        self.draft.assets = every if self.draft.assets != every else {only}
        self.wished = set(Asset) if self.draft.assets == every else {only}
        self.draw()

    def copied(self) -> str:
        """The names of the chosen snapshots."""
        return "\n".join(info.id for info in self.draft.copies.values())


def _vaults(found: Iterable[SnapshotInfo]) -> list[str]:
    """The vaults that hold all of these."""
    sets = [set(info.vaults) for info in found]
    return sorted(set.intersection(*sets)) if sets else []
