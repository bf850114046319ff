#!/bin/sh
# Boots a Debian tree as a machine of its own, with namespaces alone: nothing of the host's is visible or changed.
# Called in a new mount namespace as `boot.sh outer IMAGE WORK NAME SIZE`. What the machine writes is in a tmpfs of SIZE
# on WORK; the mounts go with the last process. The machine's first process is the child of this one's child.
set -eu
stage=$1 image=$2 work=$3 name=$4
if [ "$stage" = outer ]; then
    mount -t tmpfs -o "mode=755,size=$5" mastovault "$work"
    mkdir "$work/cgroup" "$work/upper" "$work/scratch" "$work/root"
    mount -t cgroup2 none "$work/cgroup"
    # A test run that was killed could not tidy up.
    for old in "$work"/cgroup/mastovault-*; do
        [ -e "/proc/${old##*-}" ] || find "$old" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    group=$work/cgroup/mastovault-$$
    mkdir "$group"
    echo $$ >"$group/cgroup.procs"
    mount -t overlay -o "lowerdir=$image,upperdir=$work/upper,workdir=$work/scratch" none "$work/root"
    status=0
    setpriv --pdeathsig KILL unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child \
        sh "$0" inner "$image" "$work" "$name" || status=$?
    echo $$ >"$work/cgroup/cgroup.procs"
    # The kernel takes a moment to empty the groups of what was killed.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
    done
    exit "$status"
fi
root=$work/root
hostname "$name"
echo "$name" >"$root/etc/hostname"
printf '127.0.0.1 localhost %s\n' "$name" >"$root/etc/hosts"
# A machine with an id does not take itself for one that boots for the first time.
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec none "$root/sys/fs/cgroup"
mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o nosuid,nodev tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for each in null zero full random urandom tty; do
    : >"$root/dev/$each"
    mount --bind "/dev/$each" "$root/dev/$each"
done
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs "$root/run"
# What belongs to the whole kernel can be seen and not be set.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -o remount,bind,ro "$root/sys"
cd "$root"
mkdir -p mnt/old
pivot_root . mnt/old
cd /
umount -l /mnt/old
exec setpriv --bounding-set -sys_module,-sys_time,-sys_boot,-sys_rawio \
    env -i container=mastovault PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --show-status=false --log-target=journal
