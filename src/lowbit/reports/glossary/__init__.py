"""The words of this project, each with one meaning: what `lowbit explain` says, and docs/glossary.md lists."""
