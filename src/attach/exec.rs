//! Attaching through the engine's exec.
