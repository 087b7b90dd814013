//! A checked PID.

use std::fmt;

use serde::Serialize;

/// The PID of a process that fusion may inspect and signal: never 0, 1 or negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "i64")]
pub struct Pid(i32);

/// A number that is not the PID of a process fusion may touch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the PID of a process that fusion may touch")]
pub struct InvalidPid(pub i64);

impl Pid {
    /// Returns the number, which is above 1.
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

impl TryFrom<i64> for Pid {
    type Error = InvalidPid;

    fn try_from(number: i64) -> Result<Self, InvalidPid> {
        match i32::try_from(number) {
            Ok(pid) if pid > 1 => Ok(Self(pid)),
            _ => Err(InvalidPid(number)),
        }
    }
}

impl From<Pid> for i64 {
    fn from(pid: Pid) -> Self {
        Self::from(pid.0)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_forbidden_pid_is_refused() {
        for number in [0, 1, -1, i64::MIN, i64::from(i32::MAX) + 1, 4_294_967_295, 4_294_967_298, i64::MAX] {
            assert_eq!(Pid::try_from(number), Err(InvalidPid(number)));
        }
        assert_eq!(Pid::try_from(2).unwrap().as_raw(), 2);
        assert_eq!(Pid::try_from(i64::from(i32::MAX)).unwrap().as_raw(), i32::MAX);
    }

    proptest! {
        #[test]
        fn a_pid_keeps_its_number(number: i64) {
            if let Ok(pid) = Pid::try_from(number) {
                assert!(pid.as_raw() > 1);
                assert_eq!(i64::from(pid), number);
            }
        }
    }
}
