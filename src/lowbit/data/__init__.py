"""A folder, a .npz file, an iterable or the name of a built-in set enters; `Images` leave, with any labels."""
