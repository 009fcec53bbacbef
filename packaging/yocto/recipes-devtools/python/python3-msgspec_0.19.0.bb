SUMMARY = "Fast serialization and validation, in C"
HOMEPAGE = "https://jcristharif.com/msgspec/"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=c21402f8022478021f697044388b97c4"

SRC_URI[sha256sum] = "604037e7cd475345848116e89c553aa9a233259733ab51986ac924ab1b976f8e"

inherit pypi python_setuptools_build_meta

RDEPENDS:${PN} += "python3-core python3-datetime python3-numbers python3-json"
