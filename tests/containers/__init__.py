"""Real container engines of Debian beside the daemon under the privileges of its unit."""
