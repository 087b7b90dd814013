//! No content of the file does harm when read, and no failed write loses the old record.

use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::core::paths::Paths;
use crate::core::process::mock::MockDriver;
use crate::core::process::{Pid, ProcessDriver as _};
use crate::env::Environment;

fn paths(directory: &Path) -> ServicePaths {
    let environment = Environment { config_dir: Some(directory.to_owned()), ..Environment::default() };
    Paths::discover(&environment).unwrap().service("some")
}

fn spec() -> ProcessSpec {
    ProcessSpec {
        program: "/usr/bin/server".into(),
        args: vec!["--model".into(), "a \"b\" $(c)\n".into()],
        without: Vec::new(),
        home: None,
        env: vec![("TOKEN".into(), "secret".into())],
        directory: "/".into(),
        log: Some("/tmp/some.log".into()),
        instance: String::new(),
    }
}

const MARK: &str = "0123456789abcdef";

fn address() -> Address {
    Address { host: "127.0.0.1".to_owned(), port: 8080 }
}

fn intent() -> Record {
    let started_at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Record::intent(&spec(), InstanceId::random(MARK).unwrap(), &address(), started_at)
}

fn complete() -> Record {
    let pid = Pid::try_from(4242).unwrap();
    let process = ProcessId { pid, start_time: 7, host: MockDriver::new().host().unwrap() };
    Record { process: Some(process), ready: true, model: Some("m".to_owned()), ..intent() }
}

fn parse(value: &Value) -> Result<Record, RecordError> {
    Record::parse(Path::new("state.json"), value.to_string().as_bytes())
}

/// Asserts that a record that was read has no forbidden pid.
fn check(result: &Result<Record, RecordError>) {
    if let Ok(Record { process: Some(process), .. }) = result {
        assert!(process.pid.as_raw() > 1);
    }
}

#[test]
fn record_is_read_as_written() {
    let directory = TempDir::new().unwrap();
    let paths = paths(directory.path());
    assert_eq!(Record::read(&paths.state).unwrap(), None);
    for record in [intent(), complete()] {
        record.write(&paths).unwrap();
        assert_eq!(Record::read(&paths.state).unwrap(), Some(record.clone()));
        let pid = std::fs::read_to_string(&paths.pid).ok();
        assert_eq!(pid, record.process.map(|process| format!("{}\n", process.pid)));
        for (path, mode) in [(&paths.directory, 0o700), (&paths.state, 0o600)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o7777, mode);
        }
    }
    Record::remove(&paths).unwrap();
    assert_eq!(std::fs::read_dir(&paths.directory).unwrap().count(), 0);
    Record::remove(&paths).unwrap();
}

#[test]
fn intent_removes_earlier_pid_file() {
    let directory = TempDir::new().unwrap();
    let paths = paths(directory.path());
    complete().write(&paths).unwrap();
    intent().write(&paths).unwrap();
    assert!(!paths.pid.exists());
}

#[test]
fn changed_pid_file_is_corrected() {
    let directory = TempDir::new().unwrap();
    let paths = paths(directory.path());
    for garbage in ["", "1\n", "4242", "4242\n4243\n", "\u{0}"] {
        complete().write(&paths).unwrap();
        std::fs::write(&paths.pid, garbage).unwrap();
        complete().write(&paths).unwrap();
        assert_eq!(std::fs::read_to_string(&paths.pid).unwrap(), "4242\n");
    }
}

#[test]
fn record_holds_no_secrets() {
    let text = serde_json::to_string(&complete()).unwrap();
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn unknown_fields_are_ignored() {
    let record = complete();
    let mut value = serde_json::to_value(&record).unwrap();
    value["later"] = json!({"anything": [1]});
    value["process"]["later"] = json!(1);
    assert_eq!(parse(&value).unwrap(), record);
}

#[test]
fn newer_format_is_not_damaged() {
    let error = parse(&json!({"format": 2, "everything": "else"})).unwrap_err();
    assert!(matches!(error, RecordError::Newer { found: 2, .. }), "{error:?}");
}

#[test]
fn forbidden_pid_damages_record() {
    for pid in
        [json!(0), json!(1), json!(-1), json!(4_294_967_295_u64), json!(2_147_483_648_u64), json!(u64::MAX)]
    {
        let mut value = serde_json::to_value(complete()).unwrap();
        value["process"]["pid"] = pid.clone();
        let error = parse(&value).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { .. }), "{pid}: {error:?}");
    }
    for pid in [json!("4242"), json!(42.5), json!(null), json!([4242]), json!({})] {
        let mut value = serde_json::to_value(complete()).unwrap();
        value["process"]["pid"] = pid.clone();
        assert!(parse(&value).is_err(), "{pid}");
    }
}

#[test]
fn invalid_instance_id_damages_record() {
    for id in ["", "x", "0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdef0", "=\0"] {
        let mut value = serde_json::to_value(complete()).unwrap();
        value["instance"] = json!(id);
        assert!(matches!(parse(&value), Err(RecordError::Damaged { .. })), "{id}");
    }
}

#[test]
fn error_of_garbage_names_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.json");
    let nested = "[".repeat(60_000);
    let texts: [&[u8]; 9] = [
        b"",
        b"\n",
        b"null",
        b"[]",
        b"{}",
        b"4242\n",
        b"{\"format\": \"1\"}",
        b"\xff\xfe\x00",
        nested.as_bytes(),
    ];
    for text in texts {
        std::fs::write(&path, text).unwrap();
        let error = Record::read(&path).unwrap_err();
        assert!(matches!(&error, RecordError::Damaged { path: named, .. } if *named == path), "{error:?}");
    }
}

#[test]
fn truncated_record_is_damaged() {
    let text = serde_json::to_vec_pretty(&complete()).unwrap();
    for length in 0..text.len() {
        let error = Record::parse(Path::new("state.json"), &text[..length]).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { .. }), "{length}: {error:?}");
    }
}

#[test]
fn a_record_of_10_mb_is_not_read() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.json");
    std::fs::write(&path, vec![b' '; 10_000_000]).unwrap();
    let error = Record::read(&path).unwrap_err();
    assert!(
        matches!(error, RecordError::File(FileError::TooLarge { limit: MAX_RECORD_BYTES, .. })),
        "{error:?}"
    );
}

#[test]
fn record_must_be_regular_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.json");
    std::fs::write(directory.path().join("real"), serde_json::to_vec(&complete()).unwrap()).unwrap();
    symlink(directory.path().join("real"), &path).unwrap();
    let error = Record::read(&path).unwrap_err();
    assert!(matches!(error, RecordError::File(FileError::SymbolicLink { .. })), "{error:?}");
    std::fs::remove_file(&path).unwrap();
    // No process writes to it, and the read does not wait for one.
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = Record::read(&path).unwrap_err();
    assert!(matches!(error, RecordError::File(FileError::NotAFile { .. })), "{error:?}");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = Record::read(&path).unwrap_err();
    assert!(matches!(error, RecordError::File(FileError::NotAFile { .. })), "{error:?}");
}

/// Makes each step of a write fail in turn, with an obstacle in its way.
#[test]
fn failed_write_leaves_old_record() {
    for new_file in ["state.json.new", "some.pid.new"] {
        let directory = TempDir::new().unwrap();
        let paths = paths(directory.path());
        let old = complete();
        old.write(&paths).unwrap();
        let place = paths.directory.join(new_file);
        std::fs::create_dir_all(place.join("full")).unwrap();
        let process = ProcessId { pid: Pid::try_from(4243).unwrap(), ..old.process.clone().unwrap() };
        let new = Record { process: Some(process), ..old.clone() };
        assert!(matches!(new.write(&paths), Err(RecordError::File(_))), "{new_file}");
        let found = Record::read(&paths.state).unwrap().unwrap();
        assert!(found == old || found == new, "{new_file}: {found:?}");
        std::fs::remove_dir_all(&place).unwrap();
        new.write(&paths).unwrap();
        assert_eq!(Record::read(&paths.state).unwrap(), Some(new), "{new_file}");
    }
}

#[test]
fn directory_in_place_of_record_stays() {
    let directory = TempDir::new().unwrap();
    let paths = paths(directory.path());
    std::fs::create_dir_all(paths.state.join("full")).unwrap();
    assert!(matches!(complete().write(&paths), Err(RecordError::File(_))));
    let left: Vec<_> =
        std::fs::read_dir(&paths.directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, std::slice::from_ref(&paths.state));
}

#[test]
fn error_names_directory_that_cannot_be_made() {
    let directory = TempDir::new().unwrap();
    let paths = paths(&directory.path().join("file"));
    std::fs::write(directory.path().join("file"), "").unwrap();
    let error = complete().write(&paths).unwrap_err();
    assert!(matches!(error, RecordError::File(FileError::Io { .. })), "{error:?}");
}

/// The remains of a writer that was killed.
#[test]
fn unfinished_write_does_no_harm() {
    let directory = TempDir::new().unwrap();
    let paths = paths(directory.path());
    let old = complete();
    old.write(&paths).unwrap();
    std::fs::write(paths.directory.join("state.json.new"), "{\"format\":").unwrap();
    assert_eq!(Record::read(&paths.state).unwrap(), Some(old.clone()));
    let new = Record { ready: false, ..old };
    new.write(&paths).unwrap();
    assert_eq!(Record::read(&paths.state).unwrap(), Some(new));
    assert!(!paths.directory.join("state.json.new").exists());
}

#[test]
fn symbolic_links_are_not_followed() {
    let directory = TempDir::new().unwrap();
    let paths = paths(directory.path());
    std::fs::create_dir(&paths.directory).unwrap();
    let precious = directory.path().join("precious");
    std::fs::write(&precious, "mine").unwrap();
    for name in ["state.json", "state.json.new", "some.pid", "some.pid.new"] {
        symlink(&precious, paths.directory.join(name)).unwrap();
    }
    complete().write(&paths).unwrap();
    Record::remove(&paths).unwrap();
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
}

#[test]
fn reader_sees_old_or_new_record() {
    let directory = TempDir::new().unwrap();
    let paths = paths(directory.path());
    let short = complete();
    let long = Record { model: Some("x".repeat(20_000)), ..short.clone() };
    short.write(&paths).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for record in [&long, &short].into_iter().cycle().take(40) {
                record.write(&paths).unwrap();
            }
        });
        while !writer.is_finished() {
            let found = Record::read(&paths.state).unwrap().unwrap();
            assert!(found == short || found == long);
        }
    });
}

#[test]
fn fingerprint_differs_between_configurations() {
    let same = fingerprint(&spec(), &address());
    assert_eq!(same, fingerprint(&spec(), &address()));
    // Pinned: another value would report every running server as changed.
    assert_eq!(same, "f87f7136432140b2");
    let changes: [fn(&mut ProcessSpec, &mut Address); 8] = [
        |spec, _| spec.program = "/usr/bin/server2".into(),
        |spec, _| spec.args.push(String::new().into()),
        |spec, _| spec.args = vec!["--modela \"b\" $(c)\n".into()],
        |spec, _| spec.args.swap(0, 1),
        |spec, _| spec.env.clear(),
        |spec, _| spec.env[0].1 = "other".into(),
        |spec, _| {
            let variables = std::mem::take(&mut spec.env);
            spec.args.extend(variables.into_iter().flat_map(|(name, value)| [name, value]));
        },
        |_, address| address.port = 8081,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (mut spec, mut address) = (spec(), address());
        change(&mut spec, &mut address);
        assert_ne!(fingerprint(&spec, &address), same, "change {number}");
    }
    let again = ProcessSpec { log: None, instance: "other".to_owned(), ..spec() };
    assert_eq!(fingerprint(&again, &address()), same, "the instance id and the log do not count");
    let linked = ProcessSpec { directory: "/another/name".into(), ..spec() };
    assert_eq!(fingerprint(&linked, &address()), same, "the name of the directory does not count");
}

#[test]
fn instance_ids_differ() {
    let ids: std::collections::HashSet<String> =
        (0..100).map(|_| InstanceId::random(MARK).unwrap().into()).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.iter().all(|id| id.len() == 32 && id.ends_with(MARK)));
}

#[test]
fn a_mark_is_of_one_service() {
    let host = |boot: &str, namespace| Host {
        boot_id: boot.to_owned(),
        pid_namespace: Some(namespace),
        machine_id: None,
        name: "name".to_owned(),
    };
    let mark = InstanceId::mark(&host("boot", 1), Path::new("/there"), "ollama");
    assert_eq!(mark.len(), 16);
    assert!(InstanceId::random(&mark).unwrap().is_marked(&mark));
    for (host, directory, service) in [
        (host("other", 1), "/there", "ollama"),
        (host("boot", 2), "/there", "ollama"),
        (host("boot", 1), "/elsewhere", "ollama"),
        (host("boot", 1), "/there", "mlx"),
    ] {
        assert_ne!(InstanceId::mark(&host, Path::new(directory), service), mark);
    }
}

/// A configuration directory may have several names.
#[test]
fn a_link_to_a_directory_has_its_mark() {
    let root = tempfile::TempDir::new().unwrap();
    let link = root.path().join("link");
    std::os::unix::fs::symlink(root.path(), &link).unwrap();
    let host = crate::core::process::unix::UnixDriver::new().host().unwrap();
    assert_eq!(InstanceId::mark(&host, &link, "mlx"), InstanceId::mark(&host, root.path(), "mlx"));
}

proptest! {
    #[test]
    fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&Record::parse(Path::new("state.json"), &bytes));
    }

    #[test]
    fn reading_changed_record_never_panics(at: prop::sample::Index, byte: u8) {
        let mut bytes = serde_json::to_vec(&complete()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check(&Record::parse(Path::new("state.json"), &bytes));
    }

    #[test]
    fn forbidden_pid_is_never_read(pid: i64) {
        let mut value = serde_json::to_value(complete()).unwrap();
        value["process"]["pid"] = json!(pid);
        let result = parse(&value);
        check(&result);
        assert_eq!(result.is_ok(), pid > 1 && pid <= i64::from(i32::MAX));
    }
}
