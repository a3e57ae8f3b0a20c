"""The example configuration: `rivha --generate-sample-config`, and docs/example.yml (a test keeps them equal)."""

from __future__ import annotations

PASSWORD = "choose-one"  # noqa: S105, as it stands below: nobody's to keep

SAMPLE = """\
# A node of a Rivha cluster. Keys are Patroni's; docs/configuration.md explains each.
# The same file on every node, but for `name` and the addresses.

scope: main                       # the cluster
namespace: /service/              # etcd's keys begin with /service/main/
name: db1                         # this node, uniquely in the cluster

restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.0.0.1:8008  # how HAProxy, rivhactl and the other agents reach it
  # authentication:               # asked of whoever wants to change something
  #   username: rivha
  #   password: choose-one

etcd3:
  hosts:
    - 10.0.0.1:2379
    - 10.0.0.2:2379
    - 10.0.0.3:2379
  # protocol: https
  # cacert: /etc/rivha/etcd-ca.pem
  # username: rivha
  # password: choose-one

bootstrap:
  # Becomes the cluster's own configuration when the first node makes it; from then on `rivhactl edit-config` changes it.
  dcs:
    ttl: 10
    loop_wait: 1
    retry_timeout: 3
    suspect_after: 2
    hang_timeout: 10
    failover_on_crash: true
    synchronous_mode: quorum        # no acknowledged commit is lost; off: faster commits, and a failover may lose the last ones
    # synchronous_mode_strict: true # rather block commits than go on without any synchronous standby
    degrade_after: 2
    maximum_lag_on_failover: 1MB    # asynchronous mode only
    postgresql:
      use_pg_rewind: true
      parameters:
        max_connections: 200
        max_wal_senders: 10
        wal_keep_size: 1GB
      pg_hba:
        - local all all peer
        - host replication replicator 10.0.0.0/24 scram-sha-256
        - host all all 10.0.0.0/24 scram-sha-256
  initdb:
    - encoding: UTF8
    - data-checksums

postgresql:
  listen: 0.0.0.0:5432
  connect_address: 10.0.0.1:5432
  data_dir: /var/lib/postgresql/15/main
  bin_dir: /usr/lib/postgresql/15/bin
  pgpass: /var/lib/postgresql/.pgpass-rivha
  authentication:
    superuser:
      username: postgres
      password: choose-one
    replication:
      username: replicator
      password: choose-one
    rewind:
      username: rewinder
      password: choose-one
  parameters:
    unix_socket_directories: /var/run/postgresql
  # callbacks:
  #   on_role_change: /etc/rivha/role.sh

tags:
  nofailover: false
  noloadbalance: false
  clonefrom: false

log:
  level: INFO
  # type: json
  # dir: /var/log/rivha
"""
