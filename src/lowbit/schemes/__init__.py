"""One tensor enters; its codes leave, and back: linear grids and code books.

numpy only: nothing here knows of a graph or a file.
"""
