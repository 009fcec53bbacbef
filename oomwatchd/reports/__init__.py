"""Records -> reports: cut into blocks, repeats of storms folded, decoded."""
