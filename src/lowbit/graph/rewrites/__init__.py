"""Small rewrites of a graph: functions `(ir.Model) -> bool` that say whether they changed it. `prepare` lists them."""
