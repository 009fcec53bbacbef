"""The warning before the kill: from samples of held memory to a forecast, and to how the warning ended.

Core: no clock, no file, no socket.
"""
