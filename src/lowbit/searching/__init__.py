"""Which recipe each layer gets: predicted damage and real bytes and times, a knapsack, and whole files measured.

Takes a model, data and limits; everything that it decides is a plan.
"""
