################################################################################
#
# oomwatchd
#
################################################################################

# this external tree lies in oomwatchd's own sources
OOMWATCHD_VERSION = 0.2.0
OOMWATCHD_SITE = $(BR2_EXTERNAL_OOMWATCHD_PATH)/../..
OOMWATCHD_SITE_METHOD = local
OOMWATCHD_SETUP_TYPE = setuptools
OOMWATCHD_LICENSE = MIT
OOMWATCHD_LICENSE_FILES = LICENSE

define OOMWATCHD_INSTALL_CONFIGURATION
	$(INSTALL) -D -m 0644 $(@D)/packaging/minimal.toml \
		$(TARGET_DIR)/etc/oomwatchd/config.toml
	$(INSTALL) -D -m 0644 $(@D)/packaging/ondemand/ondemand.toml \
		$(TARGET_DIR)/etc/oomwatchd/ondemand.toml
	$(INSTALL) -D -m 0755 $(@D)/packaging/ondemand/oomwatchd-ondemand \
		$(TARGET_DIR)/usr/libexec/oomwatchd-ondemand
endef
OOMWATCHD_POST_INSTALL_TARGET_HOOKS += OOMWATCHD_INSTALL_CONFIGURATION

define OOMWATCHD_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/packaging/busybox/S90oomwatchd \
		$(TARGET_DIR)/etc/init.d/S90oomwatchd
endef

define OOMWATCHD_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/packaging/openrc/oomwatchd \
		$(TARGET_DIR)/etc/init.d/oomwatchd
endef

define OOMWATCHD_INSTALL_INIT_SYSTEMD
	$(INSTALL) -m 0644 -t $(TARGET_DIR)/usr/lib/systemd/system -D \
		$(@D)/packaging/systemd/*.service $(@D)/packaging/systemd/*.socket
endef

$(eval $(python-package))
