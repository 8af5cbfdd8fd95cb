//! The settings tree: defaults, loading, checking, reload.
