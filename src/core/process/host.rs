//! Where PIDs and start times mean something: on one machine, from one boot to the next, in one PID namespace.

use serde::{Deserialize, Serialize};

/// The machine as a process sees it. Two are equal if a PID means the same process in both.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The id of the boot, which no other boot of any machine has.
    pub boot_id: String,
    /// The PID namespace, where there are such: each container has one.
    pub pid_namespace: Option<u64>,
    /// What stays the same from boot to boot, where the system knows such an id: never the name.
    pub machine_id: Option<String>,
    /// The machine's name: for people, and in place of a missing id.
    pub name: String,
}

/// Where something recorded was, as seen from a [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here, so the kernel can tell what became of it.
    Here,
    /// On this machine, before its last boot: whatever ran there has ended.
    EarlierBoot,
    /// On another host or in another container: nothing can be told from here.
    Elsewhere,
}

/// The boot names the machine, which may have got another name or id since.
impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        (&self.boot_id, self.pid_namespace) == (&other.boot_id, other.pid_namespace)
    }
}

impl Host {
    /// Returns where `recorded` is, seen from here.
    pub fn place_of(&self, recorded: &Self) -> Place {
        if self == recorded {
            Place::Here
        } else if self.boot_id != recorded.boot_id && self.is_machine_of(recorded) {
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
            // A container of that machine ended with its boot, too.
            ("other", 2, Some("machine"), "name", EarlierBoot),
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
