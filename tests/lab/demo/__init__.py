"""The demo: a whole cluster on this machine, three faults, and what each of them cost. Run by scripts/demo."""
