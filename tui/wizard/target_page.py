"""Page 2: where the copy goes, the safest place first, and the options that apply to what was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Label

from backends.model import HostObservation
from backends.restore.plan import RedisChoice
from tui.rows import host_state
from tui.widgets.lines import Lines, Rule
from tui.widgets.table import Column, Table
from tui.widgets.text import Line, words, wrapped
from tui.wizard.draft import Where
from tui.wizard.page import Field, InnerField, Page

_WHAT: Mapping[Where, str] = {
    Where.SANDBOX: "a throwaway place here: restored, checked, thrown away",
    Where.FILES: "plain files in a directory of this machine",
    Where.OTHER: "onto another Mastodon server, or a bare machine",
    Where.IN_PLACE: "onto {host} itself: beside the live data, then swapped",
}
_PLAN_FIRST = "The plan comes first; nothing changes before the last button. What is there is kept for an undo."
_MEANS: Mapping[Where, str] = {
    Where.SANDBOX: "No server is touched. It proves that the copy can be restored, and how long that takes.",
    Where.FILES: "No server is touched. The database becomes a dump, the secrets .env.production, media a tree.",
    Where.OTHER: _PLAN_FIRST,
    Where.IN_PLACE: _PLAN_FIRST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRow:
    """One line of the list: a place, a host below `another host`, or an option."""

    key: str
    kind: Literal["where", "host", "redis", "exact"]
    name: str
    what: str
    on: bool
    where: Where = Where.SANDBOX
    box: bool = False


class TargetPage(Page):
    """A list of places and options, and the fields below it."""

    DEFAULT_CSS = """
    TargetPage #target-list { height: 1fr; }
    TargetPage Horizontal { height: 1; display: none; }
    TargetPage Horizontal.-shown { display: block; }
    TargetPage Label { width: 20; padding: 0 1; color: $quiet; }
    TargetPage #target-note { margin: 1 0 0 0; }
    """

    def compose(self) -> ComposeResult:
        """The list, the fields, a note."""
        yield Table([Column("box", "Bring it back to", 18), Column("what", "", 0)], self._cells, id="target-list")
        yield Rule(id="target-rule")
        yield Horizontal(Label("into directory", markup=False), InnerField(id="directory"), id="target-directory")
        yield Horizontal(
            Label("media only below", markup=False),
            InnerField(placeholder="everything, or a path such as accounts/avatars", id="subtree"),
            id="target-subtree",
        )
        yield Lines(id="target-note")

    def on_mount(self) -> None:
        """Put what is known into the fields."""
        self.query_one("#directory", Field).value = self.draft.directory
        self.query_one("#subtree", Field).value = self.draft.subtree

    @property
    def choices(self) -> Table[ChoiceRow]:
        """The list."""
        return self.query_one("#target-list", Table)

    def enter(self) -> None:
        """Begin on what is chosen."""
        self.choices.focus()
        self.choices.move_to(self.draft.where.value)

    def draw(self) -> None:
        """Draw the list, the fields that apply, and what the choice means."""
        draft = self.draft
        self.choices.show(list(self._rows()))
        self.query_one("#target-directory").set_class(draft.where is Where.FILES, "-shown")
        self.query_one("#target-subtree").set_class("subtree" in draft.options, "-shown")
        self.query_one("#target-rule", Rule).show([("it means", "title")])
        texts = [_MEANS[draft.where]]
        if draft.where is Where.SANDBOX and len(draft.copies) == 1:
            texts.append("Secrets and database together also prove that they fit (1, then w).")
        if draft.redis_is_older and draft.to_host:
            texts.append("Redis is older than the database: old jobs would run again. Starting empty is safer.")
        cells = self.app.size.width - 2
        self.query_one("#target-note", Lines).show(
            [[(f" {part}", "quiet")] for text in texts for part in wrapped(text, cells)]
        )

    def _rows(self) -> Iterable[ChoiceRow]:
        draft = self.draft
        for where in Where:
            others = self._others()
            if where is Where.OTHER and not others:
                continue
            what = _WHAT[where].format(host=draft.host)
            if where is Where.OTHER and draft.other:
                what = draft.other
            yield ChoiceRow(
                key=where.value, kind="where", name=where.value, what=what, on=draft.where is where, where=where
            )
            if where is Where.OTHER and draft.where is Where.OTHER:
                for name, address in others.items():
                    yield ChoiceRow(key=f"host {name}", kind="host", name=name, what=address, on=draft.other == name)
        if "redis" in draft.options:
            empty = draft.redis is RedisChoice.EMPTY
            what = (
                "Redis begins empty, feeds are built from the database" if empty else "Redis comes back from the copy"
            )
            yield ChoiceRow(key="redis", kind="redis", name="Redis empty", what=what, on=empty, box=True)
        if "exact" in draft.options:
            what = "media that the copy lacks is moved aside" if draft.exact else "media that the copy lacks stays"
            yield ChoiceRow(key="exact", kind="exact", name="media exact", what=what, on=draft.exact, box=True)

    def _others(self) -> Mapping[str, str]:
        seen = self.wizard.mastovault.seen
        hosts = seen.config.hosts if seen is not None else {}
        found = {one.host: one for one in seen.fleet.hosts} if seen is not None else {}
        return {
            name: f"{host.address}  {_state(found.get(name), self.wizard.mastovault.now())}"
            for name, host in hosts.items()
            if name != self.draft.host
        }

    def _cells(self, row: ChoiceRow) -> Sequence[Line]:
        sign = ("[x]" if row.on else "[ ]") if row.box else ("(•)" if row.on else "( )")
        indent = "    " if row.kind == "host" else ""
        name: Line = [(f"{indent}{sign} ", "accent" if row.on else "quiet"), (row.name, "strong" if row.on else "")]
        return [name, words(row.what, "" if row.on else "quiet")]

    def choose(self) -> None:
        """Choose what is under the cursor, or turn the option around."""
        row, draft = self.choices.current, self.draft
        if row is None or not self.choices.has_focus:
            return
        if row.kind == "where":
            self._take(row.where)
        elif row.kind == "host":
            draft.other = row.name
        elif row.kind == "redis":
            draft.redis = RedisChoice.RESTORE if row.on else RedisChoice.EMPTY
        else:
            draft.exact = not row.on
        self.wizard.refresh_picture()

    def _take(self, where: Where) -> None:
        self.draft.where = where
        if where is Where.OTHER and not self.draft.other and len(self._others()) == 1:
            self.draft.other = next(iter(self._others()))

    def go_on(self) -> bool:
        """Choose the place under the cursor; one that needs to be told more asks for it first."""
        row = self.choices.current
        if not self.choices.has_focus or row is None or row.kind not in {"where", "host"}:
            return True
        news = row.kind == "where" and row.where is not self.draft.where
        self.choose()
        if row.kind == "where" and row.where is Where.FILES and news:
            self.query_one("#directory", Field).focus()
            return False
        if row.kind == "where" and row.where is Where.OTHER and (news or not self.draft.other):
            self.choices.move_to(f"host {self.draft.other or next(iter(self._others()))}")
            return False
        return True

    @on(Table.Chosen)
    def _clicked(self) -> None:
        self.choose()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        if event.input.id == "directory":
            self.draft.directory = event.value
        else:
            self.draft.subtree = event.value

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.wizard.do_go_on()

    def copied(self) -> str:
        """Where it goes."""
        return self.draft.directory if self.draft.where is Where.FILES else self.draft.target


def _state(seen: HostObservation | None, now: datetime) -> str:
    """How a host was when it was last asked, with what runs on it."""
    if seen is None:
        return "not asked yet"
    return f"{seen.version or ''}  {host_state(seen, now)[0]}".strip()
