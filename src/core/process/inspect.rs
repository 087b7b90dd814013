//! What the kernel says of processes: start time, boot, descendants, memory, CPU, listeners.
