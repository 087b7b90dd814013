//! The host: within it, PIDs and start times mean something.

use serde::Serialize;

use crate::core::json_object::{JsonObject, required};

/// One boot of one machine, and one PID namespace in it. Two hosts are equal if a PID means the same process on both.
#[derive(Debug, Clone, Eq, Serialize)]
pub struct Host {
    /// The id of the boot, which no other boot of any machine has.
    pub boot_id: String,
    /// The PID namespace, on systems that have them: each container has its own.
    pub pid_namespace: Option<u64>,
    /// An id that stays the same from boot to boot and does not depend on the name, where the system has one.
    pub machine_id: Option<String>,
    /// The machine's name: for messages, and in place of a missing id.
    pub name: String,
}

/// Where a recorded process was, compared with this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this host: the kernel knows whether it is alive.
    Here,
    /// On this machine, before its last boot: all its processes have ended.
    EarlierBoot,
    /// On another machine or in another container: this host knows nothing about it.
    Elsewhere,
}

/// The boot id already identifies the machine, whose name and id may have changed since.
impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        (&self.boot_id, self.pid_namespace) == (&other.boot_id, other.pid_namespace)
    }
}

impl Host {
    /// Reads a host as it is serialized.
    pub fn read(host: &JsonObject<'_>) -> Result<Self, serde_json::Error> {
        Ok(Self {
            boot_id: required("boot_id", host.text("boot_id")?)?,
            pid_namespace: host.number("pid_namespace")?,
            machine_id: host.text("machine_id")?,
            name: required("name", host.text("name")?)?,
        })
    }

    /// Returns where `recorded` is, compared with this host.
    pub fn place_of(&self, recorded: &Self) -> Place {
        if self == recorded {
            Place::Here
        } else if self.boot_id != recorded.boot_id
            && self.pid_namespace == recorded.pid_namespace
            && self.is_machine_of(recorded)
        {
            Place::EarlierBoot
        } else {
            Place::Elsewhere
        }
    }

    fn is_machine_of(&self, recorded: &Self) -> bool {
        match (&self.machine_id, &recorded.machine_id) {
            (Some(own), Some(other)) => own == other,
            _ => self.name == recorded.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(boot: &str, namespace: u64, machine: Option<&str>, name: &str) -> Host {
        Host {
            boot_id: boot.to_owned(),
            pid_namespace: Some(namespace),
            machine_id: machine.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    #[test]
    fn every_difference_has_its_place() {
        use Place::{EarlierBoot, Elsewhere, Here};
        let now = host("boot", 1, Some("machine"), "name");
        for (boot, namespace, machine, name, place) in [
            ("boot", 1, Some("machine"), "name", Here),
            ("boot", 1, Some("machine"), "new name", Here),
            ("boot", 1, Some("new machine id"), "name", Here),
            ("boot", 1, None, "new name", Here),
            ("boot", 2, Some("machine"), "name", Elsewhere),
            ("other", 1, Some("machine"), "name", EarlierBoot),
            ("other", 1, Some("machine"), "new name", EarlierBoot),
            // It may be a machine of its own, with a copy of this one's id.
            ("other", 2, Some("machine"), "name", Elsewhere),
            ("other", 1, Some("other"), "name", Elsewhere),
            ("other", 1, Some("other"), "other", Elsewhere),
            ("other", 1, None, "name", EarlierBoot),
            ("other", 1, None, "other", Elsewhere),
        ] {
            let recorded = host(boot, namespace, machine, name);
            assert_eq!(now.place_of(&recorded), place, "{recorded:?}");
            assert_eq!(recorded.place_of(&now), place, "{recorded:?}");
        }
    }
}
