"""Files and evaluation images enter; a `Comparison` leaves: accuracy, error, size, speed and memory of each file."""
