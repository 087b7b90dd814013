//! The application layer, as a front end that lives long uses it: one app, shared by many threads.

mod support;

use std::sync::{Arc, Barrier, Mutex};

use fusion::core::cancel::{CancelToken, Cancelled};
use fusion::core::events::{Event, EventKind, Subscriber};
use fusion::core::services::{DownOptions, UpOptions};
use support::Sandbox;

/// The kinds of all events, by their names.
#[derive(Default)]
struct Seen(Mutex<Vec<EventKind>>);

impl Subscriber for Seen {
    fn event(&self, event: &Event) {
        self.0.lock().expect("no panic").push(event.kind.clone());
    }
}

impl Seen {
    fn starts(&self) -> usize {
        let kinds = self.0.lock().expect("no panic");
        kinds.iter().filter(|kind| matches!(kind, EventKind::Started { .. })).count()
    }
}

#[test]
fn twenty_concurrent_starts_are_one_start() {
    let sandbox = Sandbox::new();
    let app = sandbox.fusion(["ps"]).app();
    let seen = Arc::new(Seen::default());
    app.events.subscribe(&seen);
    let service = app.service("ollama").expect("a built-in service");
    let (cancel, together) = (CancelToken::new(), Barrier::new(20));
    let endpoints: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            together.wait();
            app.ensure_ready(service, true, &UpOptions::default(), &cancel).expect("it starts")
        };
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(seen.starts(), 1);
    assert!(endpoints.iter().all(|endpoint| endpoint.pid == endpoints[0].pid), "{endpoints:?}");
    app.manager(&cancel).down(service, &DownOptions::default()).expect("it stops");
}

#[test]
fn a_cancelled_start_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", &["never-bind"]);
    let app = sandbox.fusion(["ps"]).app();
    let seen = Arc::new(Seen::default());
    app.events.subscribe(&seen);
    let service = app.service("ollama").expect("a built-in service");
    let cancel = CancelToken::new();
    let error = std::thread::scope(|scope| {
        let start =
            scope.spawn(|| app.start(service, &UpOptions::default(), false, &cancel).expect_err("cancelled"));
        support::wait_until("it was started", || seen.starts() == 1);
        cancel.cancel(Cancelled::Abandoned);
        start.join().expect("no panic")
    });
    assert_eq!(error.to_string(), "interrupted");
    assert_eq!(sandbox.record("ollama"), None);
    sandbox.assert_nothing_runs();
}
