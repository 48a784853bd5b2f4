"""`python -m lowbit.reports.glossary`: the glossary as docs/glossary.md has it."""

import sys

from lowbit.reports.glossary.table import glossary

sys.stdout.write(glossary())
