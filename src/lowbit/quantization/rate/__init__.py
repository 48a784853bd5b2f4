"""A size or a drop in accuracy enters; the archive that meets it leaves.

One Lagrange multiplier for the whole network says what a bit is worth.
"""
