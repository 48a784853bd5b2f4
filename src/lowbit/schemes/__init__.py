"""ONE TENSOR -> CODES, numpy only: linear grids and clusters."""
