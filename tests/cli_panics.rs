//! A panic is logged and counted. In a process of its own: the hook is the process's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use innkeeper::telemetry::{Metrics, count_panics};

#[test]
fn a_panic_is_counted() {
    let metrics = Metrics::new().unwrap();
    count_panics(metrics.panics.clone());
    let ended = std::thread::spawn(|| panic!("on purpose")).join();
    assert!(ended.is_err());
    assert!(metrics.text().unwrap().contains("\ninnkeeper_panics_total 1\n"));
}
