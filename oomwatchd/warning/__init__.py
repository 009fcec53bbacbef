"""The warning before the kill: from samples of what is held to "this ends, then", and to what became of it.

Core: no clock, no file, no socket.
"""
