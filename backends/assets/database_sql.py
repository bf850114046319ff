"""The questions asked of the database; every answer is one JSON value. Names come from its own catalogue."""

from __future__ import annotations

# Schemas that pg_dump leaves out, and what an extension owns (pg_dump leaves its members out too).
_OURS = """n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"""
_NOT_AN_EXTENSION = """NOT EXISTS (SELECT FROM pg_depend e
  WHERE e.classid = '{catalog}'::regclass AND e.objid = {object}.oid AND e.deptype = 'e')"""
_OWN_RELATION = f"{_OURS} AND " + _NOT_AN_EXTENSION.format(catalog="pg_class", object="c")
_RELATIONS = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"

DATABASE = """
SELECT jsonb_build_object(
  'database_bytes', pg_database_size(d.oid), 'encoding', pg_encoding_to_char(d.encoding),
  'collate', d.datcollate, 'ctype', d.datctype,
  'locale_provider', to_jsonb(d) ->> 'datlocprovider', 'collation_version', to_jsonb(d) ->> 'datcollversion',
  'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
  'snapshot_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
FROM pg_database d WHERE d.datname = current_database()
"""

# PostgreSQL 15 keeps the collation's version with the database (pg_database.datcollversion).
COLLATION_NOW = """
SELECT to_jsonb(pg_database_collation_actual_version(d.oid)) FROM pg_database d WHERE d.datname = current_database()
"""

TABLES = f"""
SELECT coalesce(jsonb_object_agg(n.nspname || '.' || c.relname, jsonb_build_object(
  'quoted', format('%I.%I', n.nspname, c.relname), 'bytes', pg_table_size(c.oid),
  'estimate', greatest(c.reltuples, 0)::bigint,
  'indexes', (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid))), '{{}}')
FROM {_RELATIONS} WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {_OWN_RELATION}
"""  # noqa: S608

# Not-null constraints ('n') stand in the catalogue from PostgreSQL 18 on; leaving them out keeps versions comparable.
OBJECTS = f"""
SELECT jsonb_build_object(
  'indexes', (SELECT count(*) FROM pg_index i JOIN {_RELATIONS} ON c.oid = i.indrelid WHERE {_OWN_RELATION}),
  'unique_indexes', (SELECT count(*) FROM pg_index i JOIN {_RELATIONS} ON c.oid = i.indrelid
     WHERE i.indisunique AND {_OWN_RELATION}),
  'invalid_indexes', (SELECT coalesce(jsonb_agg(i.indexrelid::regclass::text), '[]')
     FROM pg_index i JOIN {_RELATIONS} ON c.oid = i.indrelid WHERE NOT i.indisvalid AND {_OWN_RELATION}),
  'constraints', (SELECT count(*) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype <> 'n' AND {_OWN_RELATION}),
  'foreign_keys', (SELECT count(*) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype = 'f' AND {_OWN_RELATION}),
  'sequences', (SELECT count(*) FROM {_RELATIONS} WHERE c.relkind = 'S' AND {_OWN_RELATION}),
  'views', (SELECT count(*) FROM {_RELATIONS} WHERE c.relkind = 'v' AND {_OWN_RELATION}),
  'materialized_views', (SELECT count(*) FROM {_RELATIONS} WHERE c.relkind = 'm' AND {_OWN_RELATION}),
  'functions', (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE {_OURS} AND {_NOT_AN_EXTENSION.format(catalog="pg_proc", object="p")}),
  'schemas', (SELECT coalesce(jsonb_agg(DISTINCT found.name), '[]') FROM (
     SELECT n.nspname::text AS name FROM {_RELATIONS} WHERE {_OWN_RELATION} AND c.relpersistence <> 't'
     UNION ALL SELECT n.nspname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE {_OURS} AND {_NOT_AN_EXTENSION.format(catalog="pg_proc", object="p")}) found),
  'extensions', (SELECT coalesce(jsonb_object_agg(extname, extversion), '{{}}') FROM pg_extension),
  'timestamp_id', EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE p.proname = 'timestamp_id' AND n.nspname = 'public'))
"""  # noqa: S608

COLUMNS = """
SELECT coalesce(jsonb_agg(n.nspname || '.' || c.relname || '.' || a.attname), '[]')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind = 'r' AND NOT a.attisdropped AND a.attnum > 0
  AND (c.relname, a.attname) IN (('schema_migrations', 'version'), ('statuses', 'created_at'),
    ('keypairs', 'private_key'), ('users', 'otp_secret'))
"""

# By the column that a fact needs (Mastodon's db/schema.rb): the fact and its query.
MASTODON = {
    "public.schema_migrations.version": (
        "migrations",
        "SELECT jsonb_build_object('head', max(version), 'count', count(*)) FROM public.schema_migrations",
    ),
    "public.statuses.created_at": (
        "newest_status",
        """SELECT coalesce((SELECT jsonb_build_object('id', id::text,
             'created_at', to_char(created_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
           FROM public.statuses ORDER BY id DESC LIMIT 1), 'null')""",
    ),
    "public.keypairs.private_key": (
        "encrypted_keypairs",
        "SELECT to_jsonb(EXISTS (SELECT FROM public.keypairs WHERE private_key <> ''))",
    ),
    "public.users.otp_secret": (
        "encrypted_otp_secrets",
        "SELECT to_jsonb(EXISTS (SELECT FROM public.users WHERE otp_secret <> ''))",
    ),
}
