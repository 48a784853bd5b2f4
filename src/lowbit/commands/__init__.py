"""PARSE, CALL ONE LIBRARY FUNCTION, PRINT: one function a command, one file for those that belong together."""
