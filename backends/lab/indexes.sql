-- Indexes, foreign keys and views; made after the rows, as a restore does.

CREATE UNIQUE INDEX index_accounts_on_username_and_domain_lower
  ON accounts (lower(username::text), COALESCE(lower(domain::text), ''::text));
CREATE INDEX index_accounts_on_domain_and_id ON accounts (domain, id);
CREATE INDEX index_accounts_on_uri ON accounts (uri);
CREATE INDEX search_index ON accounts USING gin ((
  setweight(to_tsvector('simple'::regconfig, display_name::text), 'A'::"char") ||
  setweight(to_tsvector('simple'::regconfig, username::text), 'B'::"char") ||
  setweight(to_tsvector('simple'::regconfig, COALESCE(domain, ''::character varying)::text), 'C'::"char")));
CREATE UNIQUE INDEX index_users_on_email ON users (email);
CREATE INDEX index_users_on_account_id ON users (account_id);
CREATE UNIQUE INDEX index_users_on_confirmation_token ON users (confirmation_token);
CREATE UNIQUE INDEX index_keypairs_on_uri ON keypairs (uri);
CREATE INDEX index_keypairs_on_account_id ON keypairs (account_id);
CREATE UNIQUE INDEX index_conversations_on_uri ON conversations (uri text_pattern_ops) WHERE uri IS NOT NULL;
CREATE INDEX index_statuses_20190820 ON statuses (account_id, id DESC, visibility, updated_at) WHERE deleted_at IS NULL;
CREATE INDEX index_statuses_local_20190824 ON statuses (id DESC, account_id)
  WHERE (local OR uri IS NULL) AND deleted_at IS NULL AND visibility = 0 AND reblog_of_id IS NULL
    AND (NOT reply OR in_reply_to_account_id = account_id);
CREATE UNIQUE INDEX index_statuses_on_uri ON statuses (uri text_pattern_ops) WHERE uri IS NOT NULL;
CREATE INDEX index_statuses_on_in_reply_to_id ON statuses (in_reply_to_id) WHERE in_reply_to_id IS NOT NULL;
CREATE INDEX index_statuses_on_reblog_of_id_and_account_id ON statuses (reblog_of_id, account_id);
CREATE INDEX index_media_attachments_on_account_id_and_status_id ON media_attachments (account_id, status_id DESC);
CREATE UNIQUE INDEX index_media_attachments_on_shortcode ON media_attachments (shortcode text_pattern_ops)
  WHERE shortcode IS NOT NULL;
CREATE INDEX index_media_attachments_on_status_id ON media_attachments (status_id);
CREATE UNIQUE INDEX index_follows_on_account_id_and_target_account_id ON follows (account_id, target_account_id);
CREATE INDEX index_follows_on_target_account_id ON follows (target_account_id);
CREATE UNIQUE INDEX index_status_stats_on_status_id ON status_stats (status_id);
CREATE UNIQUE INDEX index_session_activations_on_session_id ON session_activations (session_id);
CREATE INDEX index_session_activations_on_user_id ON session_activations (user_id);
CREATE INDEX index_login_activities_on_user_id ON login_activities (user_id);
CREATE UNIQUE INDEX index_domain_blocks_on_domain ON domain_blocks (domain);
CREATE UNIQUE INDEX index_domain_allows_on_domain ON domain_allows (domain);
CREATE UNIQUE INDEX index_settings_on_var ON settings (var);
CREATE INDEX index_web_push_subscriptions_on_user_id ON web_push_subscriptions (user_id);

ALTER TABLE accounts ADD CONSTRAINT fk_rails_2320833084
  FOREIGN KEY (moved_to_account_id) REFERENCES accounts (id) ON DELETE SET NULL;
ALTER TABLE users ADD CONSTRAINT fk_50500f500d FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE;
ALTER TABLE keypairs ADD FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE;
ALTER TABLE statuses ADD CONSTRAINT fk_9bda1543f7 FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE;
ALTER TABLE statuses ADD CONSTRAINT fk_c7fa917661
  FOREIGN KEY (in_reply_to_account_id) REFERENCES accounts (id) ON DELETE SET NULL;
ALTER TABLE statuses ADD FOREIGN KEY (in_reply_to_id) REFERENCES statuses (id) ON DELETE SET NULL;
ALTER TABLE statuses ADD FOREIGN KEY (reblog_of_id) REFERENCES statuses (id) ON DELETE CASCADE;
ALTER TABLE media_attachments ADD CONSTRAINT fk_96dd81e81b
  FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE SET NULL;
ALTER TABLE media_attachments ADD FOREIGN KEY (status_id) REFERENCES statuses (id) ON DELETE SET NULL;
ALTER TABLE follows ADD CONSTRAINT fk_32ed1b5560 FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE;
ALTER TABLE follows ADD CONSTRAINT fk_745ca29eac
  FOREIGN KEY (target_account_id) REFERENCES accounts (id) ON DELETE CASCADE;
ALTER TABLE status_stats ADD FOREIGN KEY (status_id) REFERENCES statuses (id) ON DELETE CASCADE;
ALTER TABLE session_activations ADD CONSTRAINT fk_e5fda67334
  FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
ALTER TABLE login_activities ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
ALTER TABLE web_push_subscriptions ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;

CREATE MATERIALIZED VIEW instances AS
  WITH domain_counts (domain, accounts_count) AS (
    SELECT domain, count(*) FROM accounts WHERE domain IS NOT NULL GROUP BY domain)
  SELECT domain, accounts_count FROM domain_counts
  UNION SELECT b.domain, COALESCE(c.accounts_count, 0) FROM domain_blocks b LEFT JOIN domain_counts c USING (domain)
  UNION SELECT a.domain, COALESCE(c.accounts_count, 0) FROM domain_allows a LEFT JOIN domain_counts c USING (domain);
CREATE UNIQUE INDEX index_instances_on_domain ON instances (domain);
CREATE INDEX index_instances_on_reverse_domain ON instances (reverse('.'::text || domain::text), domain);

CREATE VIEW user_ips AS
  SELECT t0.user_id, t0.ip, max(t0.used_at) AS used_at FROM (
    SELECT id AS user_id, sign_up_ip AS ip, created_at AS used_at FROM users WHERE sign_up_ip IS NOT NULL
    UNION ALL SELECT user_id, ip, updated_at FROM session_activations
    UNION ALL SELECT user_id, ip, created_at FROM login_activities WHERE success = true) t0
  GROUP BY t0.user_id, t0.ip;
