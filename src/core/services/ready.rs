//! Readiness: the probes and the wait loop.
