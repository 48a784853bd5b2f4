"""MODEL IN, MODEL OUT: load, prepare, the operator table, cost, save."""
