"""Does CHANGE cure? Memory runs out in a known way, the advice is done literally, the same runs again."""
