# Short names for the commands of bootstrap.sh, and for the Debian package.
.PHONY: run test lint deb

run test lint:
	sh bootstrap.sh $@

deb:
	sh packaging/debian/build.sh dist
