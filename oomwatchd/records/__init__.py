"""What is kept of a report: the kernel's records, and the host around them."""
