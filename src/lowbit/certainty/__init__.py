"""How sure a measured drop is: intervals, certificates and verdicts, from counts and scores of single samples alone."""
