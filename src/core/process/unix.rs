//! The real driver: own session, append log, signals; the only unsafe code of the crate.
