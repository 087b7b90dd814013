//! Chat completions: the request body, and the answer, streamed or whole.
