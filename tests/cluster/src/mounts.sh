# shellcheck shell=sh
# Creates a node's mounts in the mount namespace in which it is started, and holds them: mounts.sh FOLDER
set -eu
folder=$1
# Containers must see the kubelet's mounts, but the machine outside must not.
mount --make-rshared /
mount -t tmpfs -o mode=755 node-run /run
mkdir -p /run/containerd /run/lock /run/cdi
mount --bind "$folder/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$folder/cni-data" /var/lib/cni
mount --bind "$folder/log" /var/log
# Names are resolved as in the cluster. The file may be a link into /run.
resolver=$(readlink -f /etc/resolv.conf || true)
if [ -n "$resolver" ]; then
  mkdir -p "$(dirname "$resolver")"
  [ -e "$resolver" ] || : >"$resolver"
  mount --bind "$folder/resolv.conf" "$resolver"
fi
# The kubelet insists on setting these for the whole machine. It gets copies instead, and the machine keeps its own
# values.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e "/proc/sys/$setting" ] || continue
  copy=$folder/kernel/$(echo "$setting" | tr / .)
  cat "/proc/sys/$setting" >"$copy"
  mount --bind "$copy" "/proc/sys/$setting"
done
: >"$folder/mounted"
exec sleep infinity
