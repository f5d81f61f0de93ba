"""What publishers serve: the table of sources, and what their files must hold."""
