//! Logging to standard error, as text or JSON, with a filter that can be changed while it runs.

use std::io::{self, IsTerminal};
use std::panic;

use prometheus::IntCounter;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::{Config, Format};
use crate::name::printable;

/// Crates whose own messages are for their authors, and at `debug` may contain what passes through them, secrets too. They are held at
/// `warn` unless the filter names them.
const NOISY: &[&str] = &["russh", "bollard", "hyper", "hyper_util", "reqwest", "rustls", "h2"];

/// The running log.
#[derive(Debug, Clone)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Why there is no log, or not the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("log.filter: {0}")]
    Filter(String),
    /// Somebody else logs already, or nobody does any more.
    #[error("log: {0}")]
    Subscriber(String),
}

/// Starts to log; once in a process.
pub fn init(config: &Config) -> Result<Log, LogError> {
    let (subscriber, log) = subscriber(config, io::stderr, has_colours())?;
    subscriber.try_init().map_err(|why| LogError::Subscriber(why.to_string()))?;
    Ok(log)
}

fn subscriber<W>(config: &Config, writer: W, coloured: bool) -> Result<(impl Subscriber + Send + Sync, Log), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&config.filter).map_err(LogError::Filter)?);
    // Without this a write that fails is printed to standard error, which panics when that is what is closed.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = match config.format {
        Format::Text => lines.with_ansi(coloured).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok((tracing_subscriber::registry().with(filter).with(lines), Log { filter: handle }))
}

/// Logs every panic, and counts it.
pub fn count_panics(panics: IntCounter) {
    panic::set_hook(Box::new(move |info| {
        panics.inc();
        let payload = info.payload();
        let message = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let location = info.location().map(ToString::to_string);
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(
            message = "panic",
            what = printable(message.unwrap_or("of unknown kind")),
            location,
            thread = std::thread::current().name(),
            backtrace
        );
    }));
}

/// The filter that a text means, with other people's crates held down.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    let parsed = EnvFilter::builder().parse(text).map_err(|why| why.to_string())?;
    let level = text.split(',').filter_map(|part| part.trim().parse::<LevelFilter>().ok()).next_back().unwrap_or(LevelFilter::OFF);
    if level <= LevelFilter::WARN {
        return Ok(parsed);
    }
    let target = |part: &'_ str| part.trim().split(['=', ':', '[']).next().map(str::to_owned);
    let named: Vec<String> = text.split(',').filter_map(target).collect();
    let is_named = |name: &&&str| named.iter().any(|target| target == **name);
    let held = NOISY.iter().filter(|name| !is_named(name)).filter_map(|name| format!("{name}=warn").parse().ok());
    Ok(held.fold(parsed, EnvFilter::add_directive))
}

// === impl Log ===

impl Log {
    /// Filters by another text from now on.
    pub fn set_filter(&self, text: &str) -> Result<(), LogError> {
        let filter = filter(text).map_err(LogError::Filter)?;
        self.filter.reload(filter).map_err(|why| LogError::Subscriber(why.to_string()))
    }
}

fn has_colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut directives: Vec<String> = filter(text).unwrap().to_string().split(',').map(str::to_owned).collect();
        directives.sort();
        assert_eq!(directives.join(","), expected);
    }

    #[test]
    fn others_are_held_at_warn_unless_they_are_named() {
        check("info", "bollard=warn,h2=warn,hyper=warn,hyper_util=warn,info,reqwest=warn,russh=warn,rustls=warn");
        check(
            "debug,bollard=trace,hyper=info",
            "bollard=trace,debug,h2=warn,hyper=info,hyper_util=warn,reqwest=warn,russh=warn,rustls=warn",
        );
    }

    #[test]
    fn a_quieter_filter_is_not_made_louder() {
        check("error", "error");
        check("warn,innkeeper=debug", "innkeeper=debug,warn");
        check("innkeeper=debug", "innkeeper=debug");
    }

    /// What is written while `work` runs.
    fn written(config: &Config, work: impl FnOnce(&Log)) -> String {
        let (reader, writer) = io::pipe().unwrap();
        let writer = std::sync::Mutex::new(writer);
        let (subscriber, log) = subscriber(config, writer, false).unwrap();
        tracing::subscriber::with_default(subscriber, || work(&log));
        drop(log);
        io::read_to_string(reader).unwrap()
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_in_them() {
        let config = Config { format: Format::Json, filter: "info".to_owned() };
        let text = written(&config, |_| {
            let _span = tracing::info_span!("connection", id = "abc").entered();
            tracing::info!(account = "alice", "logged in");
            tracing::debug!("not shown");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["message"], &line["account"], &line["span"]["id"]), (&"logged in".into(), &"alice".into(), &"abc".into()));
    }

    #[test]
    fn text_lines_have_nothing_that_a_terminal_obeys() {
        let text = written(&Config::default(), |_| tracing::info!(version = "SSH-2.0-\x1b]0;x\x07", "connected \x1b[31m"));
        assert!(text.contains("connected") && !text.contains(['\x1b', '\x07']), "{text:?}");
    }

    #[test]
    fn the_filter_changes_while_it_runs() {
        let config = Config { format: Format::Json, filter: "info".to_owned() };
        let text = written(&config, |log| {
            tracing::debug!("first");
            log.set_filter("debug").unwrap();
            tracing::debug!("second");
            assert!(log.set_filter("innkeeper=loud").is_err());
            tracing::debug!("third");
        });
        assert!(!text.contains("first") && text.contains("second") && text.contains("third"), "{text}");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(filter("innkeeper=loud").is_err());
    }
}
