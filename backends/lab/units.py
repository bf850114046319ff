"""The systemd units of a native Mastodon, as `systemctl show` names their properties (Mastodon, dist/*.service)."""

from __future__ import annotations

from pathlib import Path

_ETC = "/etc/systemd/system"
WEB = "mastodon-web.service"
SIDEKIQ = "mastodon-sidekiq.service"
STREAMING = "mastodon-streaming.service"
STREAMING_PORT = "mastodon-streaming@4000.service"
POSTGRES = "postgresql@18-main.service"
REDIS = "redis-server.service"


def units(
    version: str, user: str, root: Path, *, web: int, streaming: int, redis_conf: Path
) -> dict[str, dict[str, str]]:
    """Every unit with its properties; `web` and `streaming` are the ports that they listen on."""
    ruby = f"{root.parent}/.rbenv/shims/bundle exec"
    node = "/usr/bin/node ./streaming"
    found = {
        WEB: _unit(WEB, f"{ruby} puma -C config/puma.rb", f"RAILS_ENV=production PORT={web}", user, root),
        SIDEKIQ: _unit(SIDEKIQ, f"{ruby} sidekiq -c 25", "RAILS_ENV=production DB_POOL=25", user, root),
        STREAMING: {
            **_unit(STREAMING, "/bin/echo Starting", "", user, root),
            "Type": "oneshot",
            "Restart": "no",
            "Wants": STREAMING_PORT,
            "ConsistsOf": STREAMING_PORT,
        },
        STREAMING_PORT: {
            **_unit(STREAMING_PORT, node, f"NODE_ENV=production PORT={streaming}", user, root),
            "FragmentPath": f"{_ETC}/mastodon-streaming@.service",
            "PartOf": STREAMING,
        },
        POSTGRES: {
            **_unit(POSTGRES, "/usr/bin/pg_ctlcluster 18-main start", "", "postgres", None),
            "FragmentPath": "/lib/systemd/system/postgresql@.service",
            "Type": "forking",
        },
        REDIS: {
            **_unit(REDIS, f"/usr/bin/redis-server {redis_conf} --supervised systemd --daemonize no", "", user, None),
            "FragmentPath": f"/lib/systemd/system/{REDIS}",
            "Type": "notify",
            "TimeoutStopUSec": "1min 30s",
        },
    }
    if tuple(int(part) for part in version.split(".")[:2]) >= (4, 6):
        name = "mastodon-prometheus-exporter.service"
        found[name] = {**_unit(name, f"{ruby} bin/prometheus_exporter", "", user, root), "UnitFileState": "disabled"}
    return found


def _unit(name: str, command: str, environment: str, user: str, root: Path | None) -> dict[str, str]:
    path, *_ = command.split()
    return {
        "Id": name,
        "Names": name,
        "Description": name.removesuffix(".service").replace("@", " "),
        "LoadState": "loaded",
        "UnitFileState": "enabled",
        "Type": "simple",
        "Restart": "always",
        "TimeoutStopUSec": "15s",
        "User": user,
        "Group": "",
        "WorkingDirectory": str(root) if root else "",
        "Environment": environment,
        "EnvironmentFiles": "",
        "ExecStart": f"{{ path={path} ; argv[]={command} ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; "
        "pid=0 ; code=(null) ; status=0/0 }",
        "FragmentPath": f"{_ETC}/{name}",
        "DropInPaths": "",
        "ReadWritePaths": str(root) if root else "",
    }
