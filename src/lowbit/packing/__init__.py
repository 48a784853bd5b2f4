"""Codes enter; bytes leave, and back: n-bit packing, entropy coding, the archive.

numpy only: nothing here knows of a graph.
"""
