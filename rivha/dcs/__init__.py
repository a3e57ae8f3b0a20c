"""etcd, as the agent needs it.

`base` says what is promised, `etcd` keeps the promise, `records` names keys and parses values, `writes` builds the transactions.
"""
