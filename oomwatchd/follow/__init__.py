"""The logs of other machines, as they come: a serial line, a file, a command, netconsole, syslog.

``address`` reads what a source is called, ``channels`` opens it, ``board`` makes captures of what comes of
one machine, ``follower`` is the loop around all of them. Nothing that comes in proves whose it is: captures
carry ``Source.followed``, everything is bounded, and no machine can keep another from being read.
"""
