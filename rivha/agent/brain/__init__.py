"""The policy, pure: no await, no clock, no logging, no randomness. It imports rivha.model and itself, nothing else of Rivha.

Each tick asks two questions of one View, and a quiet third:
  what about the lease?     `holding.LEASE`, one table for all situations
  what about Postgres?      `decide.POSTGRES`, a table per situation: leading, following, leaderless, blind, paused
  which chores are due?     `upkeep.upkeep`
A rule is a function that returns a Verdict or None; its name and docstring say the policy, its place in the table the precedence.
`memory.remember` folds into Memory what cannot be observed again; `election` ranks candidates.
"""
