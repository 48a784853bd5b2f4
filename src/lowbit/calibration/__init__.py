"""DATA -> STATISTICS: streaming passes and range rules."""
