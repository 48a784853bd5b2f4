"""What is wrong, in words: with the data, with how they are prepared, and with each layer of a quantized file.

Everything is cheap first and measured after: a cause that is named is one whose cure was tried.
"""
