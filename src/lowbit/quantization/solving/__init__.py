"""The moments of one layer enter; its codes and its bias leave.

Arithmetic on matrices [groups, rows, columns] alone: nothing here knows of a network.
"""
