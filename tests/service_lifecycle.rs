//! The lifecycle of a runtime with the real driver: up, ps, down, restart.

mod support;

use support::Sandbox;

#[test]
fn a_fresh_sandbox_runs_nothing() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["--version"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}
