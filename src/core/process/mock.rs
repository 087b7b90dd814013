//! A driver without processes: what the tests say happens.
