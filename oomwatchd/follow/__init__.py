"""The logs of other machines, as they come: a serial line, a file, a command, netconsole, syslog.

``address`` reads a source's name, ``channels`` opens it, ``board`` makes captures of one machine's data, and
``follower`` is the loop around all of them. Nothing proves which machine sent the data: captures carry
``Source.followed``, everything is bounded, and no machine can keep another from being read.
"""
