#!/bin/sh
# A container whose name stands in a file of root's, and what of the kernel is root's: under the packaged units.
. /lab/common.sh

id=9f02d9fa0049eb2655fc83c765f142362b2cb403b57b70ba3185071015ca3b64
part kernel; uname -r
part active; active
part failed; systemctl --failed --plain --no-legend
part ignored; journalctl --quiet --no-pager --boot --output=cat | grep -E 'oomwatchd.*(Unknown|ignoring)'
part user; grep -E '^(Uid|CapEff):' "/proc/$(pid)/status"

# as Docker keeps it
mkdir -p /var/lib/docker/containers/$id
echo '{"Name":"/shop-db"}' > /var/lib/docker/containers/$id/config.v2.json
chmod 600 /var/lib/docker/containers/$id/config.v2.json
chmod 710 /var/lib/docker/containers/$id /var/lib/docker/containers /var/lib/docker
part helper_before; systemctl show --property=ActiveEnterTimestampMonotonic --value oomwatchd-names.service
part segment; python3 -c '
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 4 << 20, 0o1600)
ctypes.memset(libc.shmat(segment, None, 0), 1, 4 << 20)
print(segment)'
mkdir /sys/fs/cgroup/docker
echo +memory > /sys/fs/cgroup/docker/cgroup.subtree_control
mkdir /sys/fs/cgroup/docker/$id
echo 24M > /sys/fs/cgroup/docker/$id/memory.max
part helper_root
helper() { systemctl show --property=MainPID --value oomwatchd-names.service; }
# its root is the host's until the manager has made it another and has become the program
python() { case $(readlink "/proc/$(helper)/exe") in */python3*) true ;; *) false ;; esac; }
until_within 90 python
ls "/proc/$(helper)/root/etc"
ended() { [ "$(systemctl is-active oomwatchd-names.service)" = inactive ]; }
until_within 90 ended # it has answered, and was asked no more
part helper_after; systemctl show --property=ActiveEnterTimestampMonotonic --value oomwatchd-names.service
part helper_log; journalctl --quiet --no-pager --boot --output=cat --unit=oomwatchd-names.service
sh -c 'echo 0 > /proc/self/oom_score_adj; echo $$ > "$0/cgroup.procs"; exec labbox hog 0 dockerized' \
    /sys/fs/cgroup/docker/$id
counted container
sleep 8 # until it has settled
part helper_idle; systemctl is-active oomwatchd-names.service
part events; events
part event; ordinary oomwatchd events show --format json \
    "$(events | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')"
part journal; journal MESSAGE_ID=e73579b0647c4e32913e05953b325c1b
part log; log
part end
sync
systemctl --force poweroff
