//! The standard streams of `up`: closed, full, or read by a program that waits for their end.

use crate::support::matrix::{SERVICES, fleet, for_each_service};
use crate::{assert_nothing_left, down, state};

/// Command substitution waits until every copy of its pipe is closed.
#[test]
fn the_server_holds_no_stream_of_up() {
    let program = env!("CARGO_BIN_EXE_fusion");
    let scripts = [
        "x=$(\"$0\" \"$1\" up); echo \"$x\"",
        "\"$0\" \"$1\" up | cat",
        "\"$0\" \"$1\" up 2>&1 | cat",
        "{ \"$0\" \"$1\" up 3>&1 4>&2; } | cat",
        "\"$0\" \"$1\" up & wait",
    ];
    for_each_service(&[], |sandbox, service| {
        for script in scripts {
            let up = sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).arg(service).run();
            assert!(up.stdout().starts_with(&format!("{service} is up at http://127.0.0.1:")), "{up}");
            down(sandbox, service);
        }
    });
}

#[test]
fn up_works_with_closed_streams() {
    let program = env!("CARGO_BIN_EXE_fusion");
    for redirection in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        for_each_service(&[], |sandbox, service| {
            let script = format!("\"$0\" \"$1\" up {redirection}");
            sandbox.command("/bin/sh").arg("-c").arg(&script).arg(program).arg(service).run().assert_code(0);
            assert_eq!(state(sandbox, service), "ready", "{redirection}");
            down(sandbox, service);
        });
    }
}

#[test]
#[cfg(target_os = "linux")] // The only system that has /dev/full.
fn up_fails_if_its_result_cannot_be_written() {
    for_each_service(&[], |sandbox, service| {
        let program = env!("CARGO_BIN_EXE_fusion");
        let up = sandbox
            .command("/bin/sh")
            .arg("-c")
            .arg(format!("\"$0\" {service} up >/dev/full"))
            .arg(program)
            .run();
        up.assert_code(1);
        assert_eq!(state(sandbox, service), "ready");
        down(sandbox, service);
    });
}

#[test]
fn a_closed_pipe_stops_neither_up_nor_down() {
    let (sandbox, _port) = fleet("auto_start = true\n", &[]);
    let program = env!("CARGO_BIN_EXE_fusion");
    let script = |command: &str| {
        let script = format!("\"$0\" {command} | true");
        sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).run().assert_code(0);
    };
    script("up");
    assert_eq!(SERVICES.map(|service| state(&sandbox, service)), ["ready"; 4]);
    script("down");
    for service in SERVICES {
        assert_nothing_left(&sandbox, service);
    }
}
