"""Which recipe each layer gets: predicted damage and real bytes and times, a knapsack, and whole files measured.

Takes a model, data and limits; what it decides is a plan, or the size that an archive's bits are allocated for.
"""
