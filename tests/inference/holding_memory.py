"""A function to be measured in another process; imports nothing."""


def allocate(mebibytes: str) -> int:
    """Hold that much memory for a moment."""
    return len(bytearray(int(mebibytes) << 20)) >> 20
