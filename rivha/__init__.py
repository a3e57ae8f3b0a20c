"""Rivha keeps a PostgreSQL cluster available.

rivha.model     the shared nouns: frozen values, no logic beyond order
rivha.config    YAML and environment -> Settings, every mistake reported at once
rivha.dcs       etcd: one read, one transaction, leases, a wake-up
rivha.postgres  the local PostgreSQL: pg_ctl, files, slots, rewind, clone
rivha.agent     observe -> View -> decide -> Decision -> perform
rivha.agent.brain  the policy; pure: no await, no clock, no logging
rivha.api       REST for HAProxy, rivhactl and people
rivha.cli       rivhactl
"""

__version__ = "0.1.0"
