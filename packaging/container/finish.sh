#!/bin/sh
# What root.sh does when the packages are unpacked into the directory $1 (none of their scripts was run); $deb is
# oomwatchd's own.
set -eu
root=$1

mkdir -p "$root/var/lib/dpkg/status.d" "$root/etc/ssl/certs" "$root/etc/oomwatchd" "$root/var/lib/oomwatchd"
for package in "$root"/var/cache/apt/archives/*.deb "$deb"; do # where scanners of images look
    dpkg-deb --field "$package" > "$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)"
done
dpkg-deb --fsys-tarfile "$deb" | tar -C "$root" -xf - ./usr/bin/oomwatchd ./usr/lib/python3
cat "$root"/usr/share/ca-certificates/mozilla/*.crt > "$root/etc/ssl/certs/ca-certificates.crt"
printf 'root:x:0:0:root:/root:/usr/sbin/nologin\n' > "$root/etc/passwd"
printf 'oomwatchd:x:65532:65532::/var/lib/oomwatchd:/usr/sbin/nologin\n' >> "$root/etc/passwd"
printf 'root:x:0:\noomwatchd:x:65532:\n' > "$root/etc/group"
chown 65532:65532 "$root/var/lib/oomwatchd"
chmod 700 "$root/var/lib/oomwatchd"
# Nothing in an image is written later: compiled now, or at each start. What is for tests alone may not compile.
for directory in "$root"/usr/lib/python3*; do
    chroot "$root" /usr/bin/python3 -m compileall -q -q "${directory#"$root"}" || true
done
