"""Small rewrites of a graph, each a function `(ir.Model) -> bool`: whether it changed anything. `prepare` lists them."""
