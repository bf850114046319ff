"""The systemd units of a native Mastodon, as `systemctl show` names their properties (Mastodon, dist/*.service)."""

from __future__ import annotations

from pathlib import Path

_ETC = "/etc/systemd/system"


def units(version: str, user: str, root: Path) -> dict[str, dict[str, str]]:
    """Every unit with its properties."""
    ruby = f"{root.parent}/.rbenv/shims/bundle exec"
    found = {
        "mastodon-web.service": _unit(
            "mastodon-web", f"{ruby} puma -C config/puma.rb", "RAILS_ENV=production PORT=3000", user, root
        ),
        "mastodon-sidekiq.service": _unit(
            "mastodon-sidekiq", f"{ruby} sidekiq -c 25", "RAILS_ENV=production DB_POOL=25", user, root
        ),
        "mastodon-streaming.service": {
            **_unit("mastodon-streaming", "/bin/true", "", user, root),
            "Type": "oneshot",
            "SubState": "exited",
            "MainPID": "0",
        },
        "mastodon-streaming@4000.service": {
            **_unit("mastodon-streaming@", "/usr/bin/node ./streaming", "NODE_ENV=production PORT=4000", user, root),
            "Id": "mastodon-streaming@4000.service",
        },
        "postgresql@18-main.service": _unit(
            "postgresql@", "/usr/bin/pg_ctlcluster 18-main start", "", "postgres", None
        ),
        "redis-server.service": _unit("redis-server", "/usr/bin/redis-server /etc/redis/redis.conf", "", "redis", None),
    }
    found["postgresql@18-main.service"]["Id"] = "postgresql@18-main.service"
    if tuple(int(part) for part in version.split(".")[:2]) >= (4, 6):
        found["mastodon-prometheus-exporter.service"] = {
            **_unit("mastodon-prometheus-exporter", f"{ruby} bin/prometheus_exporter", "", user, root),
            "ActiveState": "inactive",
            "SubState": "dead",
            "UnitFileState": "disabled",
            "MainPID": "0",
        }
    return found


def _unit(name: str, command: str, environment: str, user: str, root: Path | None) -> dict[str, str]:
    path, *_ = command.split()
    return {
        "Id": f"{name}.service",
        "Names": f"{name}.service",
        "Description": name.replace("@", ""),
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "UnitFileState": "enabled",
        "Type": "simple",
        "MainPID": "1000",
        "User": user,
        "WorkingDirectory": str(root) if root else "",
        "Environment": environment,
        "EnvironmentFiles": "",
        "ExecStart": f"{{ path={path} ; argv[]={command} ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; "
        "pid=0 ; code=(null) ; status=0/0 }",
        "FragmentPath": f"{_ETC}/{name}.service",
        "ReadWritePaths": str(root) if root else "",
    }
