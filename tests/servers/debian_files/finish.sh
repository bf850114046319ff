#!/bin/sh
# Finishes a Debian tree, inside it: nothing that keeps a test waiting or reaches for the kernel, and the users.
set -eu
systemctl mask --quiet systemd-sysctl.service systemd-modules-load.service systemd-logind.service \
    systemd-update-utmp.service systemd-remount-fs.service console-getty.service getty.target dev-hugepages.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
rm -f /etc/systemd/system/timers.target.wants/* /etc/systemd/system/multi-user.target.wants/e2scrub* \
    /etc/systemd/system/multi-user.target.wants/remote-fs.target
# As the guide for installing Mastodon has it, with the home closed to others.
adduser --quiet --disabled-password --gecos Mastodon mastodon
chmod 0750 /home/mastodon
# Two people who look after the machine: one becomes root without a password, one with.
adduser --quiet --disabled-password --gecos Administrator admin
adduser --quiet --disabled-password --gecos Ops ops
printf '%s\n' 'admin ALL=(ALL) NOPASSWD: ALL' 'ops ALL=(ALL) ALL' >/etc/sudoers.d/people
chmod 0440 /etc/sudoers.d/people
for user in admin ops; do
    install -d -m 0700 -o "$user" -g "$user" "/home/$user/.ssh"
done
rm -rf /var/cache/apt/archives /var/lib/apt/lists /usr/share/doc /usr/share/man /usr/share/locale /usr/share/i18n
