"""What every step shares: errors for people, atomic outputs, one command-line style, progress lines."""
