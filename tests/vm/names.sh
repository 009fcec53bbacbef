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

# Real containers by Podman, killed three times; told by OTLP, too, for which the unit gets a network. The kernel's
# choice passes over a container that is started with the lab's own score.
mkdir -p /lab/root/bin /lab/root/dev /lab/root/proc /lab/root/sys /lab/root/etc /lab/root/tmp /lab/root/run \
    /etc/systemd/system/oomwatchd.service.d
cp /bin/busybox /lab/labbox /lab/root/bin/
for name in sh sleep; do ln -s busybox /lab/root/bin/$name; done
part podman_image; tar -C /lab/root -cf - . | podman import --quiet - busybox
cp /usr/share/doc/oomwatchd/examples/network.conf /etc/systemd/system/oomwatchd.service.d/
printf '[sinks.otlp]\nurl = "http://127.0.0.1:4318"\nencoding = "json"\n' > /etc/oomwatchd/config.toml
ordinary python3 /lab/receiver.py 4318 > /lab/otlp &
systemctl daemon-reload
part podman_active; systemctl restart oomwatchd.service; active
part podman_run; ordinary podman run --detach --name shop-cache --network none --log-driver none --pull never \
    --memory 24m --memory-swap 24m busybox /bin/sh -c 'sleep 3; exec /bin/labbox hog 0 cached'
part podman_status
podman wait shop-cache
for again in 2 3; do ordinary podman start shop-cache > /dev/null; podman wait shop-cache; done
counted podman
sent() { [ "$(wc -l < /lab/otlp)" -ge 3 ]; }
until_within 60 sent
part podman_otlp; cat /lab/otlp
# what is counted anew begins at 0 for a minute; what was counted before is shown at once
part podman_restart; systemctl restart oomwatchd.service; active
part podman_metrics; metrics | grep '^oomwatchd_container_oom_kills_total{'
part events; events
part event; ordinary oomwatchd events show --format json \
    "$(events | python3 -c 'import json, sys; print(json.load(sys.stdin)[-1]["id"])')"
part journal; journal MESSAGE_ID=e73579b0647c4e32913e05953b325c1b
part log; log
part end
sync
systemctl --force poweroff
