-- The part of Mastodon's schema that Mastovault reads or that a restore can break: real table, column and index names,
-- the id function with its salt, sequences, foreign keys, a view and materialized views (Mastodon 4.7).
-- psql variables: salt (32 hex digits).

CREATE FUNCTION timestamp_id(table_name text) RETURNS bigint LANGUAGE plpgsql AS $function$
  DECLARE
    time_part bigint := (date_part('epoch', now()) * 1000)::bigint << 16;
    sequence_base bigint;
  BEGIN
    sequence_base := ('x' || substr(md5(table_name || '@SALT@' || time_part::text), 1, 4))::bit(16)::bigint;
    RETURN time_part | ((sequence_base + nextval(table_name || '_id_seq')) & 65535);
  END
$function$;

CREATE TABLE schema_migrations (version character varying NOT NULL PRIMARY KEY);
CREATE TABLE ar_internal_metadata (
  key character varying NOT NULL PRIMARY KEY, value character varying,
  created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL);

CREATE SEQUENCE accounts_id_seq;
CREATE TABLE accounts (
  id bigint DEFAULT timestamp_id('accounts'::text) PRIMARY KEY,
  username character varying DEFAULT '' NOT NULL, domain character varying,
  private_key text, public_key text DEFAULT '' NOT NULL,
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL,
  note text DEFAULT '' NOT NULL, display_name character varying DEFAULT '' NOT NULL,
  uri character varying DEFAULT '' NOT NULL, url character varying,
  avatar_file_name character varying, avatar_content_type character varying, avatar_file_size integer,
  avatar_updated_at timestamp, header_file_name character varying, header_content_type character varying,
  header_file_size integer, header_updated_at timestamp, avatar_remote_url character varying,
  locked boolean DEFAULT false NOT NULL, header_remote_url character varying DEFAULT '' NOT NULL,
  last_webfingered_at timestamp, inbox_url character varying DEFAULT '' NOT NULL,
  outbox_url character varying DEFAULT '' NOT NULL, shared_inbox_url character varying DEFAULT '' NOT NULL,
  followers_url character varying DEFAULT '' NOT NULL, protocol integer DEFAULT 0 NOT NULL,
  memorial boolean DEFAULT false NOT NULL, moved_to_account_id bigint, featured_collection_url character varying,
  fields jsonb, actor_type character varying, discoverable boolean, also_known_as character varying[],
  silenced_at timestamp, suspended_at timestamp, hide_collections boolean,
  avatar_storage_schema_version integer, header_storage_schema_version integer, suspension_origin integer,
  sensitized_at timestamp, trendable boolean, reviewed_at timestamp, requested_review_at timestamp,
  indexable boolean DEFAULT false NOT NULL);

CREATE TABLE users (
  id bigserial PRIMARY KEY, email character varying DEFAULT '' NOT NULL,
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL,
  encrypted_password character varying DEFAULT '' NOT NULL, reset_password_token character varying,
  reset_password_sent_at timestamp, sign_in_count integer DEFAULT 0 NOT NULL, current_sign_in_at timestamp,
  last_sign_in_at timestamp, confirmation_token character varying, confirmed_at timestamp,
  confirmation_sent_at timestamp, unconfirmed_email character varying, locale character varying,
  consumed_timestep integer, otp_required_for_login boolean DEFAULT false NOT NULL, last_emailed_at timestamp,
  otp_backup_codes character varying[], account_id bigint NOT NULL, disabled boolean DEFAULT false NOT NULL,
  chosen_languages character varying[], approved boolean DEFAULT true NOT NULL, sign_up_ip inet, role_id bigint,
  settings text, time_zone character varying, otp_secret character varying);

CREATE TABLE keypairs (
  id bigserial PRIMARY KEY, account_id bigint NOT NULL, uri character varying NOT NULL, type integer NOT NULL,
  public_key character varying NOT NULL, private_key character varying, expires_at timestamp(6),
  revoked boolean DEFAULT false NOT NULL, created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL);

CREATE TABLE conversations (
  id bigserial PRIMARY KEY, uri character varying, created_at timestamp NOT NULL, updated_at timestamp NOT NULL);

CREATE SEQUENCE statuses_id_seq;
CREATE TABLE statuses (
  id bigint DEFAULT timestamp_id('statuses'::text) PRIMARY KEY, uri character varying, text text DEFAULT '' NOT NULL,
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL, in_reply_to_id bigint, reblog_of_id bigint,
  url character varying, sensitive boolean DEFAULT false NOT NULL, visibility integer DEFAULT 0 NOT NULL,
  spoiler_text text DEFAULT '' NOT NULL, reply boolean DEFAULT false NOT NULL, language character varying,
  conversation_id bigint, local boolean, account_id bigint NOT NULL, application_id bigint,
  in_reply_to_account_id bigint, poll_id bigint, deleted_at timestamp, edited_at timestamp, trendable boolean,
  ordered_media_attachment_ids bigint[], fetched_replies_at timestamp, quote_approval_policy integer DEFAULT 0 NOT NULL);

CREATE SEQUENCE media_attachments_id_seq;
CREATE TABLE media_attachments (
  id bigint DEFAULT timestamp_id('media_attachments'::text) PRIMARY KEY, status_id bigint,
  file_file_name character varying, file_content_type character varying, file_file_size integer,
  file_updated_at timestamp, remote_url character varying DEFAULT '' NOT NULL,
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL, shortcode character varying,
  type integer DEFAULT 0 NOT NULL, file_meta json, account_id bigint, description text, scheduled_status_id bigint,
  blurhash character varying, processing integer, file_storage_schema_version integer,
  thumbnail_file_name character varying, thumbnail_content_type character varying, thumbnail_file_size integer,
  thumbnail_updated_at timestamp, thumbnail_remote_url character varying);

CREATE TABLE follows (
  id bigserial PRIMARY KEY, created_at timestamp NOT NULL, updated_at timestamp NOT NULL, account_id bigint NOT NULL,
  target_account_id bigint NOT NULL, show_reblogs boolean DEFAULT true NOT NULL, uri character varying,
  notify boolean DEFAULT false NOT NULL, languages character varying[]);

CREATE TABLE status_stats (
  id bigserial PRIMARY KEY, status_id bigint NOT NULL, replies_count bigint DEFAULT 0 NOT NULL,
  reblogs_count bigint DEFAULT 0 NOT NULL, favourites_count bigint DEFAULT 0 NOT NULL,
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL);

CREATE TABLE session_activations (
  id bigserial PRIMARY KEY, session_id character varying NOT NULL, created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL, user_agent character varying DEFAULT '' NOT NULL, ip inet, access_token_id bigint,
  user_id bigint NOT NULL, web_push_subscription_id bigint);

CREATE TABLE login_activities (
  id bigserial PRIMARY KEY, user_id bigint NOT NULL, authentication_method character varying,
  provider character varying, success boolean, failure_reason character varying, ip inet,
  user_agent character varying, created_at timestamp);

CREATE TABLE domain_blocks (
  id bigserial PRIMARY KEY, domain character varying DEFAULT '' NOT NULL, created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL, severity integer DEFAULT 0, reject_media boolean DEFAULT false NOT NULL,
  reject_reports boolean DEFAULT false NOT NULL, private_comment text, public_comment text,
  obfuscate boolean DEFAULT false NOT NULL);

CREATE TABLE domain_allows (
  id bigserial PRIMARY KEY, domain character varying DEFAULT '' NOT NULL, created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL);

CREATE TABLE settings (
  id bigserial PRIMARY KEY, var character varying NOT NULL, value text, created_at timestamp, updated_at timestamp);

CREATE TABLE web_push_subscriptions (
  id bigserial PRIMARY KEY, endpoint character varying NOT NULL, key_p256dh character varying NOT NULL,
  key_auth character varying NOT NULL, data json, created_at timestamp NOT NULL, updated_at timestamp NOT NULL,
  access_token_id bigint, user_id bigint);
