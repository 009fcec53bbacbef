"""From the store to the sinks: waiting events, retries, and events that are given up."""
