"""A `Comparison`, a plan or a ledger enters; a terminal table, JSON, CSV or one self-contained HTML page leaves."""
