# Short names for the commands of bootstrap.sh.
.PHONY: run test lint

run test lint:
	sh bootstrap.sh $@
