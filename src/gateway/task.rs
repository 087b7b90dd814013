//! Starts work beside that of the caller, boxed: so the program has the code for one kind of task, not for each.

use std::any::Any;
use std::pin::Pin;

use http::StatusCode;

use super::rejection::Rejection;

type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;
type BoxedWork = Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>;

/// Starts a task. Nothing waits for its end.
pub(super) fn start(task: impl Future<Output = ()> + Send + 'static) {
    let task: BoxedTask = Box::pin(task);
    tokio::spawn(task);
}

/// Starts blocking work on another thread. Nothing waits for its end.
pub(super) fn start_blocking(work: impl FnOnce() + Send + 'static) {
    let work: BoxedWork = Box::new(|| {
        work();
        Box::new(())
    });
    tokio::task::spawn_blocking(work);
}

/// Runs blocking work on another thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Rejection> {
    let work: BoxedWork = Box::new(|| Box::new(work()));
    let done = tokio::task::spawn_blocking(work).await.ok().and_then(|done| done.downcast().ok());
    done.map(|done| *done).ok_or_else(|| {
        Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed; its log tells more")
    })
}
