"""`python -m lowbit.terms`: the glossary as docs/glossary.md has it."""

import sys

from lowbit.terms.table import glossary

sys.stdout.write(glossary())
