//! The isolation of a child from its caller.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use fusion::core::files::FileError;
use fusion::core::process::{Child, Ending, Liveness, ProcessDriver, ProcessError, StopSignal};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{self, Uid};
use serde_json::json;

use crate::stage::{Stage, ended, skipped};
use crate::support::{wait_until, write_program};

#[test]
fn arguments_and_variables_arrive_byte_for_byte() {
    let stage = Stage::new();
    let strange = [
        &b"a b"[..],
        b"",
        b"\"quoted\" 'twice'",
        b"$(touch pwned) `touch pwned` ; |",
        b"line\nbreak",
        b"\xff\xfe",
    ];
    let mut spec =
        stage.spec("/bin/sh", &["-c", "printf '%s\\0' \"$@\" \"$STRANGE\" > out.new; mv out.new out", "sh"]);
    spec.args.extend(strange.iter().map(|bytes| OsString::from_vec(bytes.to_vec())));
    spec.env = vec![("STRANGE".into(), OsString::from_vec(b"\xffx y\n".to_vec()))];
    let child = stage.spawn(&spec);
    assert_eq!(ended(child.as_ref()), Ending::Code(0));
    let mut expected = [&strange[..], &[b"\xffx y\n"]].concat().join(&0);
    expected.push(0);
    assert_eq!(std::fs::read(stage.path("out")).unwrap(), expected);
    assert!(!stage.path("pwned").exists());
}

#[test]
fn the_child_leads_its_session_and_group() {
    let stage = Stage::new();
    let child = stage.spawn(&stage.dumping());
    let facts = stage.facts("dump");
    let pid = child.id().pid.as_raw();
    assert_eq!(facts["session"], pid);
    assert_eq!(facts["group"], pid);
    assert_eq!(facts["directory"], json!(stage.directory));
}

/// `x=$(fusion ollama up)`, `| cat` and `3>&1` wait for the end of a pipe that the server would hold open.
#[test]
fn no_descriptor_of_the_caller_is_inherited() {
    let stage = Stage::new();
    // Like those of a shell, these are not closed on exec.
    let (reader, writer) = unistd::pipe().unwrap();
    let high = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_DUPFD(200)).unwrap();
    let child = stage.spawn(&stage.dumping());
    stage.facts("dump");
    drop(writer);
    unistd::close(high).unwrap();
    // A process that another test starts now has the pipe, too, until its exec.
    let mut end = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&reader), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut end, 60_000_u16).unwrap();
    let hung_up = end[0].revents().unwrap();
    assert!(hung_up.contains(nix::poll::PollFlags::POLLHUP), "the child has the caller's pipe");
    assert_eq!(stage.driver.liveness(child.id()).unwrap(), Liveness::Alive);
}

#[test]
fn both_outputs_go_to_the_log_in_order() {
    let stage = Stage::new();
    std::fs::write(stage.path("log"), "before\n").unwrap();
    std::fs::set_permissions(stage.path("log"), PermissionsExt::from_mode(0o644)).unwrap();
    let child = stage.shell("cat; echo one; echo two >&2; echo three");
    assert_eq!(ended(child.as_ref()), Ending::Code(0));
    assert_eq!(stage.log(), "before\none\ntwo\nthree\n");
    let mode = std::fs::metadata(stage.path("log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn without_a_log_output_is_discarded() {
    let stage = Stage::new();
    let mut spec = stage.spec("/bin/sh", &["-c", "echo one && echo two >&2"]);
    spec.log = None;
    assert_eq!(ended(stage.spawn(&spec).as_ref()), Ending::Code(0));
    assert!(!stage.path("log").exists());
}

#[test]
fn a_log_is_private_with_any_umask() {
    for umask in ["000", "022", "777"] {
        let stage = Stage::new();
        assert!(stage.act(&format!("umask {umask}"), "spawn and wait"), "{umask}");
        let mode = std::fs::metadata(stage.path("log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{umask}");
    }
}

fn refused(result: Result<Box<dyn Child>, ProcessError>) -> ProcessError {
    match result {
        Ok(child) => panic!("started: {:?}", child.id()),
        Err(error) => error,
    }
}

#[test]
fn a_linked_log_is_refused() {
    let stage = Stage::new();
    std::fs::write(stage.path("precious"), "mine").unwrap();
    for target in ["precious", "missing"] {
        let _ = std::fs::remove_file(stage.path("log"));
        symlink(stage.path(target), stage.path("log")).unwrap();
        let error = refused(stage.driver.spawn(&stage.spec("/bin/sh", &["-c", "echo overwritten"])));
        assert!(
            matches!(&error, ProcessError::Log(FileError::SymbolicLink { path }) if *path == stage.path("log")),
            "{error:?}"
        );
    }
    assert_eq!(std::fs::read_to_string(stage.path("precious")).unwrap(), "mine");
    assert!(!stage.path("missing").exists());
    assert_eq!(stage.members(None), []);
}

#[test]
fn a_log_must_be_a_regular_file() {
    let stage = Stage::new();
    nix::unistd::mkfifo(&stage.path("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = refused(stage.driver.spawn(&stage.spec("/bin/sh", &["-c", ":"])));
    // Without a reader, a pipe cannot even be opened for writing.
    assert!(matches!(&error, ProcessError::Log(_)), "{error:?}");
    std::fs::remove_file(stage.path("log")).unwrap();
    std::fs::create_dir(stage.path("log")).unwrap();
    let error = refused(stage.driver.spawn(&stage.spec("/bin/sh", &["-c", ":"])));
    assert!(matches!(&error, ProcessError::Log(_)), "{error:?}");
}

#[test]
fn a_log_of_another_user_is_refused() {
    if !Uid::effective().is_root() {
        return skipped("a log of another user", "only root can give files away");
    }
    let stage = Stage::new();
    std::fs::write(stage.path("log"), "theirs").unwrap();
    unistd::chown(&stage.path("log"), Some(Uid::from_raw(65534)), None).unwrap();
    let error = refused(stage.driver.spawn(&stage.spec("/bin/sh", &["-c", "echo overwritten"])));
    assert!(matches!(&error, ProcessError::Log(FileError::AnotherOwner { owner: 65534, .. })), "{error:?}");
    assert_eq!(stage.log(), "theirs");
}

#[test]
fn a_missing_program_is_named() {
    let stage = Stage::new();
    let program = stage.path("missing");
    let error = refused(stage.driver.spawn(&stage.spec(program.to_str().unwrap(), &[])));
    assert!(
        matches!(&error, ProcessError::ProgramMissing { program: named } if *named == program),
        "{error:?}"
    );
}

#[test]
fn a_program_without_execute_permission_is_named() {
    let stage = Stage::new();
    let program = stage.path("program");
    write_program(&program, "#!/bin/sh\n");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o644)).unwrap();
    let error = refused(stage.driver.spawn(&stage.spec(program.to_str().unwrap(), &[])));
    let ProcessError::CannotRun { program: named, source } = &error else { panic!("{error:?}") };
    assert_eq!(*named, program);
    assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
}

/// Too many processes or open files and too little memory are told in this way, too.
#[test]
fn a_limit_of_the_system_blames_no_program() {
    let stage = Stage::new();
    let error = refused(stage.driver.spawn(&stage.spec("/bin/sh", &["-c", &"x".repeat(2 << 20)])));
    let ProcessError::System { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(nix::errno::Errno::E2BIG as i32));
}

#[test]
fn a_bad_interpreter_is_named() {
    let stage = Stage::new();
    let program = stage.path("program");
    write_program(&program, "#! /opt/gone/bin/python3 -E\nprint()\n");
    let error = refused(stage.driver.spawn(&stage.spec(program.to_str().unwrap(), &[])));
    let ProcessError::InterpreterMissing { program: named, interpreter } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((named, interpreter.as_str()), (&program, "/opt/gone/bin/python3"));
}

#[test]
fn a_missing_directory_is_named() {
    let stage = Stage::new();
    let mut spec = stage.spec("/bin/sh", &["-c", ":"]);
    spec.directory = stage.path("missing");
    let error = refused(stage.driver.spawn(&spec));
    assert!(
        matches!(&error, ProcessError::DirectoryMissing { directory } if *directory == spec.directory),
        "{error:?}"
    );
}

#[test]
fn a_failed_exec_leaves_no_process() {
    assert!(Stage::new().act("", "fail to spawn"));
}

#[test]
fn a_caller_may_have_closed_standard_streams() {
    for before in ["exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-", "exec <&- >&-", "exec >&- 2>&-"]
    {
        let stage = Stage::new();
        assert!(stage.act(before, "spawn"), "{before}");
        let facts = stage.facts("dump");
        if cfg!(target_os = "linux") {
            let log = stage.path("log").canonicalize().unwrap();
            let found = |number: &str| PathBuf::from(facts["descriptors"][number].as_str().unwrap());
            assert_eq!(
                [found("0"), found("1"), found("2")],
                [PathBuf::from("/dev/null"), log.clone(), log],
                "{before}"
            );
        }
    }
}

#[test]
fn ignored_signals_are_reset_in_the_child() {
    let stage = Stage::new();
    // The signal that nohup ignores, and others.
    assert!(stage.act("trap '' HUP INT QUIT TERM PIPE CHLD USR1 USR2 TSTP TTOU", "spawn"));
    let facts = stage.facts("dump");
    if cfg!(target_os = "linux") {
        let ignored = u64::from_str_radix(facts["ignored"].as_str().unwrap(), 16).unwrap();
        // The standard library of the fake ignores SIGPIPE (13) itself; 32 and 33 are the C library's own.
        assert_eq!(ignored & !(0b11 << 31), 1 << 12, "{ignored:x}");
    }
    let [member] = &stage.members(None)[..] else { panic!("one process") };
    stage.driver.signal(member, StopSignal::Terminate).unwrap();
    wait_until("SIGTERM ends it", || stage.driver.liveness(member).unwrap() == Liveness::Dead);
}

#[test]
fn blocked_signals_are_unblocked_in_the_child() {
    let stage = Stage::new();
    let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK).unwrap();
    let child = stage.spawn(&stage.dumping());
    before.thread_set_mask().unwrap();
    assert_eq!(stage.facts("dump")["blocked"], json!([]));
    stage.driver.signal(child.id(), StopSignal::Terminate).unwrap();
    assert_eq!(ended(child.as_ref()), Ending::Signal(Signal::SIGTERM as i32));
}

#[test]
fn a_caller_may_have_a_deleted_directory() {
    let stage = Stage::new();
    assert!(stage.act("mkdir gone && cd gone && rmdir ../gone", "spawn"));
    assert_eq!(stage.facts("dump")["directory"], "/");
}

#[test]
fn the_instance_id_of_the_caller_is_replaced() {
    let stage = Stage::new();
    assert!(stage.act("", "spawn"));
    assert_eq!(stage.facts("dump")["environment"]["FUSION_INSTANCE"], stage.instance);
    assert_eq!(stage.members(None).len(), 1);
}

#[test]
fn the_ending_is_known_with_sigchld_ignored() {
    for before in ["", "trap '' CHLD"] {
        let stage = Stage::new();
        assert!(stage.act(before, "spawn and wait"), "{before}");
        assert_eq!(stage.facts("facts"), json!({"ending": "Code(7)"}), "{before}");
    }
}

#[test]
fn the_child_outlives_the_death_of_its_caller() {
    let stage = Stage::new();
    assert!(stage.act("", "spawn"));
    stage.facts("dump");
    let [member] = &stage.members(None)[..] else { panic!("one process") };
    assert_eq!(stage.driver.liveness(member).unwrap(), Liveness::Alive);
}
