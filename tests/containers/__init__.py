"""Real container engines of Debian, and the daemon with the privileges of its unit."""
