"""HOW GOOD: accuracy, error, size, speed, memory, comparison."""
