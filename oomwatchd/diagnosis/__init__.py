"""A report and the host around it -> why memory ran out, and what to change."""
