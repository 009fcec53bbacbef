"""What makes committed files from the sources; nothing here is installed."""
