include $(sort $(wildcard $(BR2_EXTERNAL_OOMWATCHD_PATH)/package/*/*.mk))
