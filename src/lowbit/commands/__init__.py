"""The words of a command line enter; one library function is called, and what it gives is printed.

One function per command, one file for those that belong together; options that go together are one value.
"""
