"""CODES -> BYTES, numpy only: n-bit packing, entropy coding, the archive."""
