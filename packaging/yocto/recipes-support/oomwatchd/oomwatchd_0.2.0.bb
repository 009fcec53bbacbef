SUMMARY = "Says why Linux ran out of memory"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=993e62676ce8bdf167408a66d06ffa38"

# the archive that `python3 -m build --sdist` makes, beside this recipe in files/
SRC_URI = "file://oomwatchd-${PV}.tar.gz"
S = "${UNPACKDIR}/oomwatchd-${PV}"

inherit python_setuptools_build_meta systemd update-rc.d

do_install:append() {
    install -D -m 0644 ${S}/packaging/minimal.toml ${D}${sysconfdir}/oomwatchd/config.toml
    install -D -m 0644 ${S}/packaging/ondemand/ondemand.toml ${D}${sysconfdir}/oomwatchd/ondemand.toml
    install -D -m 0755 ${S}/packaging/ondemand/oomwatchd-ondemand ${D}${libexecdir}/oomwatchd-ondemand
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -d ${D}${systemd_system_unitdir}
        install -m 0644 ${S}/packaging/systemd/*.service ${S}/packaging/systemd/*.socket \
            ${D}${systemd_system_unitdir}
    else
        install -D -m 0755 ${S}/packaging/busybox/S90oomwatchd ${D}${sysconfdir}/init.d/oomwatchd
    fi
}

SYSTEMD_SERVICE:${PN} = "oomwatchd.service oomwatchd-kmsg.socket"
INITSCRIPT_NAME = "oomwatchd"
INITSCRIPT_PARAMS = "defaults 90 10"

FILES:${PN} += "${libexecdir} ${systemd_system_unitdir}"
CONFFILES:${PN} = "${sysconfdir}/oomwatchd/config.toml ${sysconfdir}/oomwatchd/ondemand.toml"
RDEPENDS:${PN} = "python3-modules python3-msgspec"
