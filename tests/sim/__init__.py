"""The real agent code in a world that exists only in memory and in virtual time. docs/simulation.md tells how it works."""
