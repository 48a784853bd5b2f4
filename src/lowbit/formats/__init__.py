"""Codes enter; the bytes of a file leave, and back: written files are opened, unpacked and accounted for."""
