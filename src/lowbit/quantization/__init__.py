"""WHOLE MODEL: recipes, the plan, and carrying it out."""
