//! Every metric there is, in one place, so that names and labels can be read at a glance.
//!
//! Labels take values from small fixed sets only: an account or a workspace never is one, except in [`ContainerMetrics`], of the workspaces that
//! run.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::ContainerMetrics;

/// Handles to all metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Where they are gathered from.
    pub registry: Registry,
    /// Connections accepted.
    pub connections: IntCounter,
    /// Connections refused before the handshake, by `reason`: `max_startups`, `per_source`; to workspaces, `urls_per_address`.
    pub connections_refused: IntCounterVec,
    /// Connections open now, by `stage`: `login`, `open`.
    pub connections_open: IntGaugeVec,
    /// Login attempts, by `method` (`password`, `publickey`) and `outcome` (`granted`, `denied`, or an error's label).
    pub logins: IntCounterVec,
    /// Time an authenticator took, by `authenticator`.
    pub auth_seconds: HistogramVec,
    /// Sessions open now.
    pub sessions_open: IntGauge,
    /// Sessions ended, by `kind`: `shell`, `exec`, `sftp`.
    pub sessions: IntCounterVec,
    /// How long sessions lasted.
    pub session_seconds: Histogram,
    /// Forwarded connections open now.
    pub forwards_open: IntGauge,
    /// Forwarded connections, and places to listen that were refused, by `kind` (`local`, `local_socket`, `remote`, `remote_socket`, `agent`, `x11`) and `outcome`
    /// (`opened`, `denied`, `limit`, `unready`, `failed`).
    pub forwards: IntCounterVec,
    /// From the login's verdict to the first byte of the session's process, by `path`: `attach`, `claim`, `start`, `create`.
    pub first_byte_seconds: HistogramVec,
    /// Workspaces made ready, by `path`: `attach`, `claim`, `start`, `create`.
    pub starts: IntCounterVec,
    /// From asked to ready, by `path`.
    pub start_seconds: HistogramVec,
    /// Workspaces that could not be made ready, by `reason`.
    pub start_failures: IntCounterVec,
    /// The instance's containers, by `state`.
    pub containers: IntGaugeVec,
    /// Ready containers the pool should have, by `template`.
    pub pool_desired: IntGaugeVec,
    /// Ready containers the pool has, by `template`.
    pub pool_ready: IntGaugeVec,
    /// Containers claimed from the pool.
    pub pool_claims: IntCounter,
    /// Times the pool had none to give.
    pub pool_misses: IntCounter,
    /// Times a pool container could not be made or claimed.
    pub pool_failures: IntCounter,
    /// Times the sweeper looked.
    pub sweeps: IntCounter,
    /// Containers stopped, by `reason`: `idle`, `room`, `lifetime`, `asked`.
    pub stops: IntCounterVec,
    /// Containers that were to be stopped and that the engine did not stop.
    pub stop_failures: IntCounter,
    /// For how long the workspace has been being stopped that has been so longest; 0 if none is.
    pub stopping_longest: IntGauge,
    /// Workspaces that got a container of another image, by `outcome`: `done`, `undone`.
    pub upgrades: IntCounterVec,
    /// Workspaces whose container is of another image than their template names now.
    pub outdated: IntGauge,
    /// Things found that nobody owns and removed, by `kind`: `container`, `slot`, `home`, `loop`.
    pub orphans: IntCounterVec,
    /// Logins that wait for a place.
    pub queue_length: IntGauge,
    /// How long they waited.
    pub queue_seconds: Histogram,
    /// Services of running workspaces, by `state`: `ready`, `unready`, `unknown`, `stopped`.
    pub services: IntGaugeVec,
    /// Times a service was started again.
    pub service_restarts: IntCounter,
    /// Times a container could not be told its services, or one of them.
    pub service_failures: IntCounter,
    /// Bytes that are free, by `which` disk: `state`, `homes`.
    pub disk_free: IntGaugeVec,
    /// 1 while less is free on one of them than is to be.
    pub disk_low: IntGauge,
    /// Backups made.
    pub backups: IntCounter,
    /// Backups that could not be made, and looks at the repository that failed.
    pub backup_failures: IntCounter,
    /// Bytes that backups added to the repository.
    pub backup_bytes: IntCounter,
    /// Workspaces without a backup that is as young as it should be.
    pub backups_late: IntGauge,
    /// When the last backup was made, in seconds since 1970; 0 before the first.
    pub backup_last_success: IntGauge,
    /// When the repository was last verified, in seconds since 1970; 0 before the first time.
    pub backup_last_verified: IntGauge,
    /// Things that were wrong in the repository then.
    pub backup_damage: IntGauge,
    /// Configuration reloads, by `outcome`: `applied`, `refused`.
    pub reloads: IntCounterVec,
    /// Tasks that panicked; each is a bug.
    pub panics: IntCounter,
    /// Requests to workspaces, by `outcome`: `answered`, `refused`, `unready`, `nobody`, `broken`, `slow`, `too-many`, `malformed`.
    pub url_requests: IntCounterVec,
    /// Events written to the audit trail.
    pub audit_events: IntCounter,
    /// Events that came faster than they could be recorded.
    pub audit_lost: IntCounter,
    /// Times that the audit trail could not be written, or was not taken by its webhook.
    pub audit_failures: IntCounter,
    /// Terminals that are being recorded.
    pub recordings_open: IntGauge,
    /// Bytes of all recordings that are on the disk.
    pub recording_bytes: IntGauge,
    /// Recordings that have ended and that the bucket does not have yet.
    pub recordings_unsent: IntGauge,
    /// How often the bucket took none or removed none.
    pub recording_upload_failures: IntCounter,
    /// Sessions that could not be recorded, or not to their end, by `reason`: `disk`, `disk_low`, `slow`, `quota`, `largest`.
    pub recording_failures: IntCounterVec,
    /// What each workspace that runs uses and may use.
    pub container_usage: ContainerMetrics,
    /// The gateway's own process, under the names that every exporter uses, so without our prefix.
    process: Registry,
}

/// Upper bounds in seconds: from a warm attach on a fast host (5 ms) to a pull on a slow one.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds in seconds for sessions: from a `git` command to a working day.
const SESSION_SECONDS: &[f64] = &[0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0];

impl Metrics {
    /// A registry of its own with every metric in it, all at zero. Fails only if two metrics have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("innkeeper".to_owned()), None)?;
        let r = &registry;
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        let metrics = Self {
            connections: add(r, IntCounter::new("connections_total", "Connections accepted")?)?,
            connections_refused: counter(r, "connections_refused_total", "Connections refused before the handshake", &["reason"])?,
            connections_open: gauge(r, "connections_open", "Connections open now", &["stage"])?,
            logins: counter(r, "logins_total", "Login attempts", &["method", "outcome"])?,
            auth_seconds: histogram(r, "auth_seconds", "Time an authenticator took", &["authenticator"])?,
            sessions_open: add(r, IntGauge::new("sessions_open", "Sessions open now")?)?,
            sessions: counter(r, "sessions_total", "Sessions ended", &["kind"])?,
            session_seconds: add(
                r,
                Histogram::with_opts(HistogramOpts::new("session_seconds", "How long sessions lasted").buckets(SESSION_SECONDS.to_vec()))?,
            )?,
            forwards_open: add(r, IntGauge::new("forwards_open", "Forwarded connections open now")?)?,
            forwards: counter(r, "forwards_total", "Forwarded connections, opened or refused", &["kind", "outcome"])?,
            first_byte_seconds: histogram(r, "first_byte_seconds", "From a login's verdict to the first byte of its process", &["path"])?,
            starts: counter(r, "starts_total", "Workspaces made ready", &["path"])?,
            start_seconds: histogram(r, "start_seconds", "From asked to ready", &["path"])?,
            start_failures: counter(r, "start_failures_total", "Workspaces that could not be made ready", &["reason"])?,
            containers: gauge(r, "containers", "Containers of this instance", &["state"])?,
            pool_desired: gauge(r, "pool_desired", "Ready containers the pool should have", &["template"])?,
            pool_ready: gauge(r, "pool_ready", "Ready containers the pool has", &["template"])?,
            pool_claims: add(r, IntCounter::new("pool_claims_total", "Containers claimed from the pool")?)?,
            pool_misses: add(r, IntCounter::new("pool_misses_total", "Times the pool had none to give")?)?,
            pool_failures: add(r, IntCounter::new("pool_failures_total", "Times a pool container could not be made or claimed")?)?,
            sweeps: add(r, IntCounter::new("sweeps_total", "Times the sweeper looked")?)?,
            stops: counter(r, "stops_total", "Containers stopped", &["reason"])?,
            stop_failures: add(r, IntCounter::new("stop_failures_total", "Containers that the engine did not stop")?)?,
            stopping_longest: add(
                r,
                IntGauge::new("stopping_longest_seconds", "For how long the workspace that takes longest has been being stopped")?,
            )?,
            upgrades: counter(r, "upgrades_total", "Workspaces that were to get a container of another image", &["outcome"])?,
            outdated: add(r, IntGauge::new("outdated", "Workspaces whose container is of another image than their template's now")?)?,
            orphans: counter(r, "orphans_removed_total", "Things that nobody owned, removed", &["kind"])?,
            queue_length: add(r, IntGauge::new("queue_length", "Logins that wait for a place")?)?,
            queue_seconds: add(
                r,
                Histogram::with_opts(HistogramOpts::new("queue_seconds", "How long logins waited for a place").buckets(SECONDS.to_vec()))?,
            )?,
            services: gauge(r, "services", "Services of running workspaces", &["state"])?,
            service_restarts: add(r, IntCounter::new("service_restarts_total", "Times a service was started again")?)?,
            service_failures: add(r, IntCounter::new("service_failures_total", "Times a container could not be told a service")?)?,
            disk_free: gauge(r, "disk_free_bytes", "Bytes that are free on a disk", &["which"])?,
            disk_low: add(r, IntGauge::new("disk_low", "1 while less than limits.disk_floor is free, and nobody gets a first home")?)?,
            backups: add(r, IntCounter::new("backups_total", "Backups made")?)?,
            backup_failures: add(r, IntCounter::new("backup_failures_total", "Backups that could not be made")?)?,
            backup_bytes: add(r, IntCounter::new("backup_bytes_total", "Bytes that backups added to the repository")?)?,
            backups_late: add(
                r,
                IntGauge::new("backups_late", "Workspaces whose last backup is half as old again as it should get, or missing")?,
            )?,
            backup_last_success: add(
                r,
                IntGauge::new("backup_last_success_timestamp_seconds", "When the last backup was made, in seconds since 1970")?,
            )?,
            backup_last_verified: add(
                r,
                IntGauge::new("backup_last_verified_timestamp_seconds", "When the repository was last verified, in seconds since 1970")?,
            )?,
            backup_damage: add(r, IntGauge::new("backup_damage", "Things that were wrong in the repository when it was last verified")?)?,
            reloads: counter(r, "reloads_total", "Configuration reloads", &["outcome"])?,
            panics: add(r, IntCounter::new("panics_total", "Tasks that panicked")?)?,
            url_requests: add(r, IntCounterVec::new(Opts::new("url_requests_total", "Requests to workspaces"), &["outcome"])?)?,
            audit_events: add(r, IntCounter::new("audit_events_total", "Events written to the audit trail")?)?,
            audit_lost: add(r, IntCounter::new("audit_lost_total", "Events that came faster than they could be recorded")?)?,
            audit_failures: add(
                r,
                IntCounter::new("audit_failures_total", "Times the audit trail could not be written, or was not taken by its webhook")?,
            )?,
            recordings_open: add(r, IntGauge::new("recordings_open", "Terminals that are being recorded")?)?,
            recording_bytes: add(r, IntGauge::new("recording_bytes", "Bytes of all recordings on the disk")?)?,
            recordings_unsent: add(r, IntGauge::new("recordings_unsent", "Recordings that have ended and wait for recording.target")?)?,
            recording_upload_failures: add(
                r,
                IntCounter::new("recording_upload_failures_total", "Times that recording.target took or removed no recording")?,
            )?,
            recording_failures: counter(
                r,
                "recording_failures_total",
                "Sessions that could not be recorded, or not to their end",
                &["reason"],
            )?,
            container_usage: add(r, ContainerMetrics::new()?)?,
            process,
            registry,
        };
        // A counter that is first seen as 1 has not increased for who looks at increases: all that alerts look at are there from the start.
        for method in ["password", "publickey"] {
            for outcome in ["granted", "denied", "unreachable", "timeout", "bad_status", "too_large", "garbage", "accounts_file"] {
                metrics.logins.with_label_values(&[method, outcome]);
            }
        }
        for reason in ["max_startups", "per_source", "urls_per_address"] {
            metrics.connections_refused.with_label_values(&[reason]);
        }
        for reason in ["template", "settings", "home", "disk_low", "image", "engine", "queue_full"] {
            metrics.start_failures.with_label_values(&[reason]);
        }
        for outcome in ["done", "undone"] {
            metrics.upgrades.with_label_values(&[outcome]);
        }
        for outcome in ["applied", "refused"] {
            metrics.reloads.with_label_values(&[outcome]);
        }
        for kind in ["container", "slot", "home", "loop"] {
            metrics.orphans.with_label_values(&[kind]);
        }
        for reason in ["disk", "disk_low", "slow", "quota", "largest"] {
            metrics.recording_failures.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    /// Everything measured, in Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
    add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)?)
}
