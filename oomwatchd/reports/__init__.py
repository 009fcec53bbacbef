"""Records -> reports: cut, stormy repeats joined, decoded."""
