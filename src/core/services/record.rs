//! What is remembered of a started process, read and written atomically.
