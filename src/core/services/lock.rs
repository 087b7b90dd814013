//! One change at a time for each runtime: a lock file that the kernel releases when its holder dies.
