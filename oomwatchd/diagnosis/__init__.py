"""From a report and the state of the host: why memory ran out, and what to change."""
