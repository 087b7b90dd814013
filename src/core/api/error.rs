//! Any server's error reply, in one line of words.
