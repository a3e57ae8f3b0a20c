"""The local PostgreSQL: `base` says what is promised, `server` keeps the promise with pg_ctl, files and asyncpg."""
