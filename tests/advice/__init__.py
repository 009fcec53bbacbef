"""Does CHANGE cure? Memory runs out in a known way, the bench follows the advice and runs the same again."""
