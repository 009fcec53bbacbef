"""From the store to the sinks: what waits, what is tried again, what is given up."""
