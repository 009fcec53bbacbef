#!/bin/sh
# Runs the script that the kernel's command line names (lab.run=NAME), with what it is called with.
for word in $(cat /proc/cmdline); do
    case $word in lab.run=*) exec sh "/lab/${word#*=}.sh" "$@" ;; esac
done
