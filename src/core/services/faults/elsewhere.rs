//! Records of another host or container: reported, and neither judged nor changed nor removed.

use super::*;

/// What the other host left.
fn record_bytes(machine: &Machine) -> Vec<u8> {
    std::fs::read(machine.file("state.json")).unwrap()
}

/// Asserts that no command takes the record for one of this host, or touches it.
#[track_caller]
fn assert_untouched(machine: &Machine) {
    let (before, spawned) = (record_bytes(machine), machine.driver.spawned().len());
    let (signals, pid) = (machine.driver.signals().len(), machine.record().unwrap().process.map(|it| it.pid));
    let status = machine.with(|manager, service| manager.status(service).unwrap());
    assert_eq!((status.state, status.pid, &status.exited), (State::Stopped, None, &None));
    assert_eq!(status.elsewhere.as_ref().map(|elsewhere| elsewhere.pid), Some(pid), "{status:?}");
    let refused = [
        machine.up().map(drop),
        machine.down().map(drop),
        machine.with(|manager, service| manager.restart(service, &UpOptions::default()).map(drop)),
        machine.with(|manager, service| manager.require_endpoint(service).map(drop)),
        machine.with(|manager, service| manager.find_endpoint(service).map(drop)),
    ];
    for result in refused {
        assert!(matches!(result, Err(ServiceError::Elsewhere { .. })), "{result:?}");
    }
    assert_eq!(record_bytes(machine), before);
    assert_eq!((machine.driver.spawned().len(), machine.driver.signals().len()), (spawned, signals));
}

#[test]
fn record_of_another_host_is_kept() {
    for_each_kind(|kind| {
        for leave in [MockDriver::move_to_another_machine, MockDriver::enter_container] {
            let machine = Machine::new(kind);
            machine.will_respond(|| {});
            machine.up().unwrap();
            leave(&machine.driver);
            assert_untouched(&machine);
        }
    });
}

#[test]
fn intent_of_another_host_is_kept() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        record_intent(&machine);
        let host = machine.driver.host().unwrap();
        machine.with(|_, service| {
            Record { host: Some(host), ..machine.record().unwrap() }.write(&service.files).unwrap();
        });
        machine.driver.move_to_another_machine();
        assert_untouched(&machine);
    });
}

/// A server that responds here is used, although the record is of another host.
#[test]
fn external_server_is_used_beside_such_a_record() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        machine.up().unwrap();
        let before = record_bytes(&machine);
        machine.driver.move_to_another_machine();
        let listener = TcpListener::bind((machine.address.host.as_str(), machine.address.port)).unwrap();
        machine.driver.unrelated(MockPlan::runs().listens(&machine.address));
        let server = std::thread::spawn(move || respond(listener.accept().unwrap().0, || {}));
        assert_eq!(machine.up().unwrap().kind, UpKind::External);
        server.join().unwrap();
        assert_eq!(record_bytes(&machine), before);
    });
}

#[test]
fn new_name_of_this_host_changes_nothing() {
    for_each_kind(|kind| {
        let machine = Machine::new(kind);
        machine.will_respond(|| {});
        let pid = machine.up().unwrap().endpoint.pid;
        machine.driver.rename_host();
        assert_eq!(machine.down().unwrap().pid, pid);
        machine.assert_nothing_remains();
    });
}
