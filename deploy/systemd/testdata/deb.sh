#!/bin/sh
# Installs, starts, upgrades, removes and purges the package, in a copy of this machine's files that is
# gone afterwards. Run it as root in mount, pid and network namespaces of its own:
#   unshare --mount --pid --net --fork --kill-child sh deb.sh EMPTY-DIR OLD.deb NEW.deb NEW-VERSION
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${INSIDE:-}" ]; then
  mount -t tmpfs none "$1"
  mkdir "$1/up" "$1/work" "$1/root"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
  mount -t proc proc "$1/root/proc"
  mount --rbind /dev "$1/root/dev"
  mount -t tmpfs none "$1/root/run"
  mkdir -p "$1/root/run/systemd/system" "$1/root/usr/local/sbin"
  install -m 755 "$here/systemctl" "$1/root/usr/local/sbin/systemctl"
  cp "$here/deb.sh" "$1/root/deb.sh"
  cp "$2" "$1/root/old.deb"
  cp "$3" "$1/root/new.deb"
  ip link set lo up 2>/dev/null || true
  INSIDE=yes PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin exec chroot "$1/root" /bin/sh /deb.sh "$4"
fi

until_true() {
  for _ in $(seq 300); do
    if "$@" >/tmp/last 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "never true: $*" && cat /tmp/last /run/stand-in/*.log && exit 1
}
marked() { grep -lzs '^MESHD_PROMISE=/var/lib/meshd' /proc/[0-9]*/environ | sed 's,/proc/\(.*\)/environ,\1,'; }
runs_version() { meshctl members -o json | grep -q "\"version\": *\"$1\""; }

dpkg -i /old.deb
[ "$(stat -c %a:%U /var/lib/meshd)" = 700:meshd ]
runuser -u meshd -- meshd init --data-dir /var/lib/meshd --name box
systemctl enable --now meshd.service
until_true meshctl members
mkdir /score
cat >/score/score.hcl <<'S'
score "box" {
  version  = "1.0.0"
  language = 1
}
part "p" {
  process "stays" { run = ["/bin/sleep", "1000"] }
}
S
meshctl policy publish /score
until_true test -n "$(sleep 1 && marked)"
until_true meshctl promises --check
before=$(marked)
[ "$(echo "$before" | wc -l)" = 1 ]
echo "started: process $before"

dpkg -i /new.deb
until_true runs_version "$1"
until_true meshctl promises --check
[ "$(marked)" = "$before" ] || { echo "not adopted: $before, now $(marked)" && exit 1; }
echo "upgraded: the same process $before"

dpkg -r meshd
[ -z "$(marked)" ] || { echo "left running: $(marked)" && exit 1; }
! pgrep -x meshd || { echo "meshd still runs" && exit 1; }
[ ! -e /usr/bin/meshd ] && [ ! -e /usr/lib/systemd/system/meshd.service ]
[ -s /var/lib/meshd/node.key ] && [ -e /etc/meshd/meshd.hcl ]
echo "removed: nothing runs, the node's key stays"

dpkg -P meshd
[ ! -e /var/lib/meshd ] && [ ! -e /etc/meshd/meshd.hcl ]
echo "purged: nothing is left"
