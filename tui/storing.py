"""What the keys do about vaults: reading and checking one, adding one, syncs and prunes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from backends.config.schema import SftpVault, VaultConfig
from backends.errors import HostKeyUnknown, MastovaultError
from backends.model import SnapshotInfo, Trust
from backends.operations.storage import StorageRow
from tui import vault_words
from tui.screens.dialog import Confirm, Typed
from tui.screens.plan import PlanScreen
from tui.screens.storage import StorageScreen
from tui.screens.vault import VaultScreen
from tui.screens.vault_check import CheckDialog, TrustKey
from tui.source import Wish
from tui.vaults import CheckedVault, Plan, VaultDetail

if TYPE_CHECKING:
    from backends.operations.vault_check import VaultReport
    from tui.app import MastovaultApp
    from tui.screens.prune import PruneScreen
    from tui.screens.sync import SyncScreen


class Storing:
    """Mixed into the app beside `Deeds`."""

    vault_details: dict[str, VaultDetail]
    checked: dict[str, CheckedVault]
    reading_vaults: set[str]

    @property
    def _store(self) -> MastovaultApp:
        return cast("MastovaultApp", self)

    def distrust(self, info: SnapshotInfo) -> str:
        """What speaks against whoever wrote a snapshot; empty when nothing does."""
        from backends.operations.trust_words import warning  # late: the first screen never needs it

        seen = self._store.seen
        return warning(info, seen.config) if seen is not None else ""

    def trust(self, info: SnapshotInfo) -> Trust:
        """Whether the writer of a snapshot is one whom the configuration trusts."""
        from backends.archive.signing import trust_of

        seen = self._store.seen
        return trust_of(info.signature, info.signer, seen.config.signers if seen is not None else {})

    def ask_vault(self, name: str) -> None:
        """Read what is in a vault, for the screens that show it."""
        if name not in self.reading_vaults:
            self.reading_vaults.add(name)
            self._store.spawn(self._read_vault, name, group="vaults")

    async def _read_vault(self, name: str) -> None:
        app, found = self._store, None
        try:
            found = await app.feed.call(app.source.vault, name)
            self.vault_details[name] = found
        finally:
            self.reading_vaults.discard(name)
            for screen in app.screen_stack:
                if isinstance(screen, StorageScreen | VaultScreen):
                    screen.vault_arrived(found)

    def check_vault(self, name: str) -> None:
        """Prove what a vault can do; the window shows it step by step."""
        app = self._store
        its = app.seen.config.vaults.get(name) if app.seen is not None else None
        if its is None:
            return
        dialog = CheckDialog(name)
        app.push_screen(dialog)
        app.spawn(self._check, name, its, dialog, group="checks")

    async def _check(self, name: str, its: VaultConfig, dialog: CheckDialog) -> None:
        app = self._store
        report = await app.feed.aside(app.source.check_vault, name, its)
        self.checked[name] = CheckedVault(at=app.now(), report=report)
        dialog.tell(report)
        app.redraw()
        if app.screen is not dialog:
            word = "works" if report.good else "is usable, not everything works" if report.usable else "cannot be used"
            app.notify(
                f"The vault {name} {word}; v shows the steps.", severity="information" if report.good else "warning"
            )
        elif report.host_key is not None and isinstance(its, SftpVault):
            self.trust_key(name, its, report.host_key, lambda: self._again(name, dialog))

    def _again(self, name: str, dialog: CheckDialog) -> None:
        dialog.dismiss(None)
        self.check_vault(name)

    async def prove(self, name: str, its: VaultConfig) -> VaultReport:
        """The same for a vault that is not saved yet."""
        app = self._store
        return await app.feed.aside(app.source.check_vault, name, its)

    def trust_key(self, name: str, its: SftpVault, shown: HostKeyUnknown, then: Callable[[], None]) -> None:
        """Show the key of a server that is not known, and accept it when the operator says that it matches."""
        app = self._store

        async def accept() -> None:
            await app.feed.call(app.source.accept_vault_key, name, its, shown)
            then()

        def decided(yes: bool | None) -> None:
            if yes:
                app.spawn(accept)

        app.push_screen(TrustKey(name, shown), decided)

    def do_add_vault(self) -> None:
        """Open the wizard that adds a vault."""
        from tui.vault_wizard.screen import VaultWizard

        self._store.push_screen(VaultWizard())

    async def save_vault(self, name: str, values: Mapping[str, Any], then: Callable[[], None]) -> None:
        """Save a vault that was proved, ask it at once, and offer to fill it. Raises `ConfigurationError`."""
        app = self._store
        await app.feed.call(app.source.add_vault, name, values)
        then()
        seen = app.seen
        others = [row.name for row in (seen.storage if seen is not None else ()) if row.status.snapshots]
        used = seen is not None and any(not host.vaults for host in seen.config.hosts.values())
        app.feed.reread()
        app.feed.refresh()
        app.notify(f"The vault {name} is saved.")
        if others and used:
            self._offer_sync(name, others)

    def forget_vault(self, row: StorageRow) -> None:
        """Take a vault out of the configuration, when its name was typed; its objects stay."""
        app, name = self._store, row.name
        seen = app.seen
        if seen is None:
            return
        using = [host for host, its in seen.config.hosts.items() if name in its.vaults]
        if using:
            who = ", ".join(using[:3]) + ("…" if len(using) > 3 else "")
            app.notify(f"{who} name the vault {name}: take it out of their `vaults` in config.toml first.",
                       severity="warning", timeout=8)  # fmt: skip
            return

        async def forget() -> None:
            await app.feed.call(app.source.forget_vault, name)
            self.vault_details.pop(name, None)
            self.checked.pop(name, None)
            app.feed.reread()
            app.feed.refresh()
            app.notify(f"{name} is forgotten. What is stored there stays.")

        def decided(yes: bool | None) -> None:
            if yes:
                app.spawn(forget)

        lines = vault_words.forgetting(row, last=len(seen.config.vaults) == 1)
        app.push_screen(Typed(f"Forget the vault {name}?", lines, name, yes="Forget it", no="Keep it"), decided)

    def _offer_sync(self, name: str, others: Sequence[str]) -> None:
        app = self._store

        def decided(yes: bool | None) -> None:
            if yes:
                self.open_sync(name)

        text = f"{', '.join(others[:3])} {'holds' if len(others) == 1 else 'hold'} backups that it lacks."
        lines = [[(text, "")], [], [("The plan comes first. Later, s in Storage does the same.", "quiet")]]
        app.push_screen(Confirm(f"Fill {name} now?", lines, yes="Show the plan", no="Later", light=True), decided)

    def open_sync(self, name: str) -> None:
        """Show what a vault lacks."""
        from tui.screens.sync import SyncScreen

        self._store.push_screen(SyncScreen(name))

    def open_prune(self, hosts: Sequence[str] = (), vaults: Sequence[str] = ()) -> None:
        """Show what no policy keeps, of some hosts or of all, in some vaults or in all."""
        from tui.screens.prune import PruneScreen

        seen = self._store.seen
        chosen = tuple(hosts) or tuple(seen.config.hosts if seen is not None else ())
        if chosen:
            self._store.push_screen(PruneScreen(chosen, vaults))
        else:
            self._store.notify("There is no host whose backups could be pruned.", severity="warning")

    def plan_sync(self, screen: SyncScreen) -> None:
        """Make the plan of a sync."""
        self._store.spawn(self._plan, screen, self._store.source.plan_sync, screen.target)

    def plan_prune(self, screen: PruneScreen) -> None:
        """Make the plan of a prune."""
        self._store.spawn(self._plan, screen, self._store.source.plan_prune, screen.hosts, screen.vaults)

    async def _plan(self, screen: SyncScreen | PruneScreen, work: Callable[..., Plan], *arguments: Any) -> None:
        try:
            plan = await self._store.feed.aside(work, *arguments)
        except MastovaultError as error:
            await screen.arrived(None, error)
        else:
            await screen.arrived(plan)

    def start_sync(self, target: str, plan: Plan) -> None:
        """Start one run for each host of which something is lacking."""
        wishes = [
            Wish(kind="sync", host=host, assets=assets, options={"target": target})
            for host, assets in plan.hosts.items()
        ]
        self._store.spawn(self._start_runs, "Sync", wishes)

    def start_prune(self, plan: Plan) -> None:
        """Start one run for each host of which something goes."""
        vaults = {host: sorted({row.vault for row in plan.going if row.host == host}) for host in plan.hosts}
        # Only where the plan was made: a vault that answers again was not shown to whoever typed the word.
        wishes = [
            Wish(kind="prune", host=host, assets=assets, options={"vaults": vaults[host]})
            for host, assets in plan.hosts.items()
        ]
        self._store.spawn(self._start_runs, "Prune", wishes)

    async def _start_runs(self, what: str, wishes: Sequence[Wish]) -> None:
        app = self._store
        busy = {entry.job.host for entry in app.entries if entry.active and entry.run.kind == wishes[0].kind}
        first = ""
        for wish in wishes:
            if wish.host in busy:
                app.notify(f"A {wish.kind} of {wish.host} is at work already; 2 shows it.", severity="warning")
                continue
            try:
                run = await app.feed.call(app.source.start, wish)
            except MastovaultError as error:
                app.notify(f"{wish.host}: {error.sentence}", title="Not started", severity="error", timeout=8)
            else:
                first = first or run
        app.feed.hurry()
        if isinstance(app.screen, PlanScreen):
            app.screen.begun = False
            if first:
                app.pop_screen()
            else:
                app.screen.refresh_picture()
        if first:
            app.show_job_of(first)
