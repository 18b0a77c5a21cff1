"""Use of devices, and connection, communication and interruption of processes."""
