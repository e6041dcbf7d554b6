-- The role with which Grafana reads: it sees the figures and the answers, and neither tokens nor keys. Run as monitor.
-- psql --variable=password=... --file=role.sql

SELECT 'CREATE ROLE grafana LOGIN' WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'grafana') \gexec
ALTER ROLE grafana PASSWORD :'password';
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '30s';
GRANT USAGE ON SCHEMA public TO grafana;
GRANT SELECT ON act, alert, alert_transition, asset, daemon, fleet, gap, incident, interval_label, job, last_window,
    maintenance, model_activation, model_version, quarantine, score, score_hour, shelf, source_partition TO grafana;
